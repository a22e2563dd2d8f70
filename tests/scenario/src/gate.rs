//! A place on the way to a server where connections can be broken and refused.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use conformance::Port;

/// Names the member of etcd that asks another one, in hexadecimal.
const SENDER: &[u8] = b"x-server-from: ";
/// The end of a request's head.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Longest head of a request.
const HEAD_MAX: usize = 64 << 10;

/// Passes connections on to a server, for as long as the process lives.
pub(crate) struct Gate {
    port: Port,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    /// Senders that do not get through; with one of them, nor does who does not say its name.
    barred: BTreeSet<String>,
    /// Both ends of what passes, and who sent it.
    open: Vec<(Option<String>, TcpStream)>,
}

impl State {
    fn keeps_out(&self, sender: Option<&String>) -> bool {
        let is_barred = |sender: &String| self.barred.contains(sender);
        self.is_shut || !self.barred.is_empty() && sender.is_none_or(is_barred)
    }
}

impl Gate {
    /// To a server at this address. `has_senders`: connections begin with a request of one member
    /// of etcd to another.
    pub(crate) fn to(target: String, has_senders: bool) -> Gate {
        let port = Port::claim();
        let listener = TcpListener::bind(port.address()).expect("the port was claimed");
        let state = Arc::<Mutex<State>>::default();
        let passed = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (state, target) = (Arc::clone(&passed), target.clone());
                thread::spawn(move || pass(near, &target, has_senders, &state));
            }
        });
        Gate { port, state }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// Nobody gets through, and who did is cut off.
    pub(crate) fn shut(&self) {
        lock(&self.state).is_shut = true;
        self.cut_off();
    }

    /// This sender does not get through, and is cut off.
    pub(crate) fn bar(&self, sender: &str) {
        lock(&self.state).barred.insert(sender.to_owned());
        self.cut_off();
    }

    fn cut_off(&self) {
        let mut state = lock(&self.state);
        for (sender, stream) in std::mem::take(&mut state.open) {
            if state.keeps_out(sender.as_ref()) {
                let _ = stream.shutdown(Shutdown::Both);
            } else {
                state.open.push((sender, stream));
            }
        }
    }

    /// Everybody gets through again.
    pub(crate) fn open(&self) {
        let mut state = lock(&self.state);
        state.is_shut = false;
        state.barred.clear();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass(mut near: TcpStream, target: &str, has_senders: bool, state: &Mutex<State>) {
    let head = match has_senders {
        true => read_head(&mut near),
        false => Vec::new(),
    };
    let sender = sender_of(&head);
    let Ok(mut far) = TcpStream::connect(target) else {
        return;
    };
    let clone = |stream: &TcpStream| stream.try_clone().expect("there are descriptors left");
    let mut passing = lock(state);
    if passing.keeps_out(sender.as_ref()) {
        return;
    }
    passing.open.push((sender.clone(), clone(&near)));
    passing.open.push((sender, clone(&far)));
    drop(passing);
    if far.write_all(&head).is_ok() {
        let (source, sink) = (clone(&far), clone(&near));
        thread::spawn(move || pump(source, sink));
        pump(near, far);
    }
}

fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
    while head.len() < HEAD_MAX && !head.windows(4).any(|four| four == HEAD_END) {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => head.extend_from_slice(&bytes[..count]),
        }
    }
    head
}

fn sender_of(head: &[u8]) -> Option<String> {
    let lines = head.split(|byte| *byte == b'\n');
    let is_sender = |line: &&[u8]| {
        line.get(..SENDER.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(SENDER))
    };
    let line = lines.into_iter().find(is_sender)?;
    let name = String::from_utf8_lossy(&line[SENDER.len()..]);
    Some(name.trim().to_ascii_lowercase())
}

fn pump(mut source: TcpStream, mut sink: TcpStream) {
    let _ = source.set_nodelay(true);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count) = source.read(&mut bytes) {
        if count == 0 || sink.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = source.shutdown(Shutdown::Both);
    let _ = sink.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_stands_in_the_head() {
        let head =
            b"GET /raft/stream/msgapp/1f HTTP/1.1\r\nHost: x\r\nX-Server-From: 8e9e05C5\r\n\r\n";
        assert_eq!(sender_of(head), Some("8e9e05c5".to_owned()));
        assert_eq!(sender_of(b"GET /members HTTP/1.1\r\nHost: x\r\n\r\n"), None);
    }
}
