//! Backing files at rest, and simple I/O through NBD for tests that need no history.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use nbd_proto::{CommandFlags, CommandKind, NbdError};
use pollux_daemon::demo::client::{Ask, Broken, Connection};

/// Longest silence of a server that is not dead.
pub const SILENCE: Duration = Duration::from_secs(20);

/// Blocks of 4096 bytes, by index, in which the first `size` bytes of two files differ; at most
/// 16. Panics: one is shorter.
pub fn different_blocks(a: &Path, b: &Path, size: u64) -> Vec<u64> {
    let files = [a, b].map(|path| File::open(path).expect("backing files can be read"));
    let [mut left, mut right] = [[0; 4096]; 2];
    let mut found = Vec::new();
    for index in 0..size / 4096 {
        for (file, bytes) in files.iter().zip([&mut left, &mut right]) {
            file.read_exact_at(bytes, index * 4096)
                .expect("backings are as long as the volume");
        }
        if left != right && found.len() < 16 {
            found.push(index);
        }
    }
    found
}

/// Attaches to an export. Panics: it cannot.
pub fn attach(uri: &str) -> Connection {
    try_attach(uri).unwrap_or_else(|broken| panic!("{uri}: {}", broken.in_full()))
}

/// Attaches to an export. Errors: it is refused, or nobody answers.
pub fn try_attach(uri: &str) -> Result<Connection, Broken> {
    let uri = uri.parse().expect("tests use URIs of the lab");
    Connection::attach(&uri, SILENCE)
}

/// Writes bytes and waits. Panics: the connection was lost.
pub fn write(connection: &mut Connection, offset: u64, bytes: &[u8]) -> Result<(), NbdError> {
    let answer = connection.exchange(&Ask::write(offset, bytes.to_vec()));
    answer.expect("the server answers").result
}

/// Writes bytes durably and waits. Panics: the connection was lost.
pub fn write_fua(connection: &mut Connection, offset: u64, bytes: &[u8]) -> Result<(), NbdError> {
    let ask = Ask {
        flags: CommandFlags::FUA,
        ..Ask::write(offset, bytes.to_vec())
    };
    connection
        .exchange(&ask)
        .expect("the server answers")
        .result
}

/// Reads bytes and waits. Panics: the connection was lost.
pub fn read(connection: &mut Connection, offset: u64, length: u32) -> Result<Vec<u8>, NbdError> {
    let answer = connection.exchange(&Ask::plain(CommandKind::READ, offset, length));
    let answer = answer.expect("the server answers");
    answer.result.map(|()| answer.data)
}

/// Flushes and waits. Panics: the connection was lost.
pub fn flush(connection: &mut Connection) -> Result<(), NbdError> {
    let answer = connection.exchange(&Ask::plain(CommandKind::FLUSH, 0, 0));
    answer.expect("the server answers").result
}
