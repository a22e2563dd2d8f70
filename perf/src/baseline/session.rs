//! One client: from the first byte of the handshake to the end.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use nbd_proto::{
    BlockSizes, ExportInfo, ExportName, Exports, Features, ListEntry, Negotiation, Policy, Refusal,
    Step,
};
use tokio::sync::Notify;
use tokio_uring::buf::BoundedBuf;

use super::disk::{self, Disk};
use super::replies::Replies;
use super::stream::Stream;

/// Bytes of one receive.
const INBOX: usize = 256 << 10;
/// Bytes of a request's head.
const HEAD: usize = 28;
/// The first bytes of a request.
const MAGIC: u32 = 0x2560_9513;
const FUA: u16 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
/// Largest request that is served.
const LENGTH_MAX: u32 = 32 << 20;

/// What reader, writer and tasks of a session share.
struct Session {
    stream: Stream,
    disk: Rc<Disk>,
    size: u64,
    replies: RefCell<Replies>,
    has_replies: Notify,
    is_over: RefCell<bool>,
}

/// A write whose data are coming.
struct Write {
    cookie: u64,
    offset: u64,
    fua: bool,
    left: usize,
    /// Data so far, for files.
    buffer: Vec<u8>,
    begin: usize,
}

/// Serves a client until it goes. Errors: it breaks the protocol or the connection.
pub async fn serve(stream: Stream, disk: Rc<Disk>, size: u64) -> io::Result<()> {
    let (stream, rest) = negotiate(stream, size).await?;
    let session = Rc::new(Session {
        stream,
        disk,
        size,
        replies: RefCell::default(),
        has_replies: Notify::new(),
        is_over: RefCell::new(false),
    });
    let writer = tokio_uring::spawn(write_replies(session.clone()));
    let result = read_requests(&session, rest).await;
    *session.is_over.borrow_mut() = true;
    session.has_replies.notify_one();
    writer.await.unwrap_or(Ok(())).and(result)
}

/// Sends what there is, all at once, whenever there is something.
async fn write_replies(session: Rc<Session>) -> io::Result<()> {
    loop {
        let all = session.replies.borrow_mut().take();
        if !all.is_empty() {
            session.stream.send(all).await?;
        } else if *session.is_over.borrow() {
            return Ok(());
        } else {
            session.has_replies.notified().await;
        }
    }
}

async fn read_requests(session: &Rc<Session>, rest: Vec<u8>) -> io::Result<()> {
    let mut buffer = vec![0; INBOX];
    let mut filled = rest.len();
    buffer[..filled].copy_from_slice(&rest);
    let mut write: Option<Write> = None;
    loop {
        let mut taken = 0;
        loop {
            let bytes = &buffer[taken..filled];
            if let Some(mut coming) = write.take() {
                let data = &bytes[..bytes.len().min(coming.left)];
                taken += data.len();
                take_data(session, &mut coming, data);
                if coming.left > 0 {
                    write = Some(coming);
                    break;
                }
                finish_write(session, coming);
            } else if bytes.len() >= HEAD {
                taken += HEAD;
                match request(session, &bytes[..HEAD])? {
                    After::Next => {}
                    After::Data(coming) => write = Some(coming),
                    After::Over => return Ok(()),
                }
            } else {
                break;
            }
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        session.has_replies.notify_one();
        let (result, same) = session.stream.receive(buffer, filled).await;
        buffer = same;
        match result? {
            0 => return Ok(()),
            count => filled += count,
        }
    }
}

/// What follows a request.
enum After {
    Next,
    Data(Write),
    Over,
}

fn request(session: &Rc<Session>, head: &[u8]) -> io::Result<After> {
    let u16_at = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    let (flags, kind) = (u16_at(4), u16_at(6));
    let (cookie, offset, length) = (u64_at(8), u64_at(16), u32_at(24));
    let fits = offset
        .checked_add(length.into())
        .is_some_and(|end| end <= session.size);
    if u32_at(0) != MAGIC || length > LENGTH_MAX || (kind == 1 && !fits) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    match kind {
        0 if fits => read(session, cookie, offset, length as usize),
        1 => {
            let (buffer, begin) = match *session.disk {
                Disk::Memory(_) => (Vec::new(), 0),
                Disk::File(_) => disk::aligned(length as usize),
            };
            return Ok(After::Data(Write {
                cookie,
                offset,
                fua: flags & FUA != 0,
                left: length as usize,
                buffer,
                begin,
            }));
        }
        2 => return Ok(After::Over),
        3 => flush(session, cookie),
        _ => session.replies.borrow_mut().push(cookie, EINVAL),
    }
    Ok(After::Next)
}

fn read(session: &Rc<Session>, cookie: u64, offset: u64, length: usize) {
    if let Disk::Memory(blocks) = &*session.disk {
        let mut replies = session.replies.borrow_mut();
        replies.push(cookie, 0);
        disk::read(&blocks.borrow(), offset, length, &mut replies);
        return;
    }
    let session = session.clone();
    tokio_uring::spawn(async move {
        let Disk::File(file) = &*session.disk else {
            return;
        };
        let found = disk::read_file(file, offset, length).await;
        let mut replies = session.replies.borrow_mut();
        replies.push(cookie, if found.is_ok() { 0 } else { EIO });
        if let Ok(data) = found {
            replies.push_data(data);
        }
        session.has_replies.notify_one();
    });
}

fn take_data(session: &Session, write: &mut Write, data: &[u8]) {
    write.left -= data.len();
    match &*session.disk {
        Disk::Memory(blocks) => {
            disk::write(&mut blocks.borrow_mut(), write.offset, data);
            write.offset += data.len() as u64;
        }
        Disk::File(_) => write.buffer.extend_from_slice(data),
    }
}

fn finish_write(session: &Rc<Session>, write: Write) {
    if let Disk::Memory(_) = &*session.disk {
        session.replies.borrow_mut().push(write.cookie, 0);
        return;
    }
    let session = session.clone();
    tokio_uring::spawn(async move {
        let Disk::File(file) = &*session.disk else {
            return;
        };
        let data = write.buffer.slice(write.begin..);
        let mut result = disk::write_file(file, write.offset, data).await;
        if result.is_ok() && write.fua {
            result = file.sync_data().await;
        }
        session.answer(write.cookie, &result);
    });
}

fn flush(session: &Rc<Session>, cookie: u64) {
    if let Disk::Memory(_) = &*session.disk {
        session.replies.borrow_mut().push(cookie, 0);
        return;
    }
    let session = session.clone();
    tokio_uring::spawn(async move {
        if let Disk::File(file) = &*session.disk {
            let result = file.sync_data().await;
            session.answer(cookie, &result);
        }
    });
}

impl Session {
    fn answer(&self, cookie: u64, result: &io::Result<()>) {
        let error = if result.is_ok() { 0 } else { EIO };
        self.replies.borrow_mut().push(cookie, error);
        self.has_replies.notify_one();
    }
}

/// The one export there is.
struct Export(u64);

impl Exports for Export {
    fn list(&self, _: &mut dyn FnMut(ListEntry<'_>)) {}

    fn default_export(&self) -> Option<ExportName> {
        Some(ExportName::default())
    }

    fn lookup(&self, name: &ExportName) -> Result<ExportInfo, Refusal> {
        let features = Features {
            flush: true,
            fua: true,
            multi_conn: true,
            ..Features::default()
        };
        Ok(ExportInfo {
            name: name.clone(),
            description: String::new(),
            size: self.0,
            read_only: false,
            features,
            block_sizes: BlockSizes::new(512, 4096, LENGTH_MAX).expect("these are in order"),
            contexts: Vec::new(),
        })
    }
}

/// Gives the stream back with what came behind the handshake.
async fn negotiate(stream: Stream, size: u64) -> io::Result<(Stream, Vec<u8>)> {
    let (export, mut out) = (Export(size), Vec::new());
    let mut negotiation = Negotiation::new(Policy::default());
    stream
        .send(vec![negotiation.greeting().to_vec().into()])
        .await?;
    loop {
        let (result, buffer) = stream.receive(vec![0; 4096], 0).await;
        let count = result?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &buffer[..count];
        loop {
            match negotiation.feed(rest, &export, &mut out) {
                Step::NeedMore => break,
                Step::Continue { consumed } => rest = &rest[consumed..],
                Step::EnterTransmission { consumed, .. } => {
                    stream.send(vec![std::mem::take(&mut out).into()]).await?;
                    return Ok((stream, rest[consumed..].to_vec()));
                }
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        stream.send(vec![std::mem::take(&mut out).into()]).await?;
    }
}
