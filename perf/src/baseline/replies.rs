//! Replies on their way out: headers that follow each other share a segment, data are not copied.

use bytes::{BufMut, Bytes, BytesMut};

/// The first bytes of a simple reply.
const MAGIC: u32 = 0x6744_6698;

/// Replies that wait to be sent.
#[derive(Default)]
pub struct Replies {
    headers: BytesMut,
    ready: Vec<Bytes>,
}

impl Replies {
    /// A reply without data; `error` is 0 or a code of the protocol.
    pub fn push(&mut self, cookie: u64, error: u32) {
        self.headers.reserve(16);
        self.headers.put_u32(MAGIC);
        self.headers.put_u32(error);
        self.headers.put_u64(cookie);
    }

    /// Data of the reply pushed last.
    pub fn push_data(&mut self, data: Bytes) {
        self.close();
        self.ready.push(data);
    }

    fn close(&mut self) {
        if !self.headers.is_empty() {
            self.ready.push(self.headers.split().freeze());
            self.headers.reserve(4096);
        }
    }

    /// Everything so far, in order.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.close();
        std::mem::take(&mut self.ready)
    }
}
