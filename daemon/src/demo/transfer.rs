//! The image, through NBD: in and out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nbd_proto::CommandKind;

use super::Trouble;
use super::client::{Ask, Connection};

/// Bytes of a request.
const CHUNK: u32 = 256 << 10;

/// Requests in flight.
const DEPTH: usize = 16;

/// Figures of a transfer.
pub(super) struct Figures {
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// Time within which 99 of 100 requests were answered.
    pub(super) p99: Duration,
}

/// Writes the image to the start of the volume, holes as zeroes, and flushes. Errors: an error
/// reply, a lost connection.
pub(super) fn write(
    image: &File,
    size: u64,
    connection: &mut Connection,
) -> Result<Figures, Trouble> {
    let mut unreadable = None;
    let asks = chunks(size).map_while(|(offset, length)| {
        let mut bytes = vec![0; length as usize];
        if let Err(why) = image.read_exact_at(&mut bytes, offset) {
            unreadable = Some(why);
            return None;
        }
        Some(match bytes.iter().all(|byte| *byte == 0) {
            true => Ask::plain(CommandKind::WRITE_ZEROES, offset, length),
            false => Ask::write(offset, bytes),
        })
    });
    let (mut failed, mut latencies) = (None, Vec::new());
    let began = Instant::now();
    connection.pipeline(DEPTH, asks, |ask, answer| {
        latencies.push(answer.took);
        if let Err(error) = answer.result {
            failed.get_or_insert(format!("writing at byte {}: {error}", ask.offset));
        }
    })?;
    let flushed = connection.exchange(&Ask::plain(CommandKind::FLUSH, 0, 0))?;
    if let Some(why) = unreadable {
        return Err(why.into());
    }
    if let Err(error) = flushed.result {
        failed.get_or_insert(format!("flush: {error}"));
    }
    match failed {
        Some(why) => Err(Trouble::new(why)),
        None => Ok(Figures {
            bytes: size,
            took: began.elapsed(),
            p99: p99(latencies),
        }),
    }
}

/// Reads the start of the volume and compares it with the image. Errors: a difference, an error
/// reply, a lost connection.
pub(super) fn compare(
    image: &File,
    size: u64,
    connection: &mut Connection,
) -> Result<Figures, Trouble> {
    let asks = chunks(size).map(|(offset, length)| Ask::plain(CommandKind::READ, offset, length));
    let (mut wrong, mut latencies) = (None, Vec::new());
    let mut expected = vec![0; CHUNK as usize];
    let began = Instant::now();
    connection.pipeline(DEPTH, asks, |ask, answer| {
        latencies.push(answer.took);
        let expected = &mut expected[..ask.length as usize];
        let found = match (answer.result, image.read_exact_at(expected, ask.offset)) {
            (Err(error), _) => Some(error.to_string()),
            (_, Err(why)) => Some(io::Error::to_string(&why)),
            (Ok(()), Ok(())) if answer.data != expected => Some("differs from the image".into()),
            _ => None,
        };
        if let (Some(found), None) = (found, &wrong) {
            wrong = Some(format!("what was read at byte {}: {found}", ask.offset));
        }
    })?;
    match wrong {
        Some(why) => Err(Trouble::new(why)),
        None => Ok(Figures {
            bytes: size,
            took: began.elapsed(),
            p99: p99(latencies),
        }),
    }
}

fn chunks(size: u64) -> impl Iterator<Item = (u64, u32)> {
    let starts = (0..size).step_by(CHUNK as usize);
    starts.map(move |start| (start, (size - start).min(u64::from(CHUNK)) as u32))
}

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    let index = (latencies.len() * 99 / 100).min(latencies.len().saturating_sub(1));
    latencies.get(index).copied().unwrap_or_default()
}
