//! Replies on their way out: headers and copied data share a segment until shared data come.

use bytes::{BufMut, Bytes, BytesMut};

/// The first bytes of a simple reply.
const MAGIC: u32 = 0x6744_6698;

/// Replies that wait to be sent.
#[derive(Default)]
pub struct Replies {
    open: BytesMut,
    ready: Vec<Bytes>,
}

impl Replies {
    /// A reply without data; `error` is 0 or a code of the protocol.
    pub fn push(&mut self, cookie: u64, error: u32) {
        self.open.reserve(16);
        self.open.put_u32(MAGIC);
        self.open.put_u32(error);
        self.open.put_u64(cookie);
    }

    /// Data of the reply pushed last, copied.
    pub fn push_copy(&mut self, data: &[u8]) {
        self.open.extend_from_slice(data);
    }

    /// Data of the reply pushed last.
    pub fn push_data(&mut self, data: Bytes) {
        self.close();
        self.ready.push(data);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.ready.push(self.open.split().freeze());
        }
    }

    /// Everything so far, in order.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.close();
        std::mem::take(&mut self.ready)
    }
}
