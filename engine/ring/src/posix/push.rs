//! Where a pushed operation goes: to a worker, a file's queue, the timers, or straight back.

use std::cmp::Reverse;
use std::os::fd::{AsRawFd, RawFd};

use super::Posix;
use super::attempt::Step;
use super::work::{self, FileWork, Memory};
use crate::arena::{Arena, Pinned};
use crate::files::Stream;
use crate::flight::{Flight, Held, pin_drain, pin_fill, pin_vector};
use crate::op::{Completion, FileId, Op};
use crate::pool::Job;

impl Posix {
    fn push_file_work(
        &mut self,
        token: u64,
        file: FileId,
        held: Held,
        work: impl FnOnce(RawFd) -> FileWork,
    ) {
        let fd = self.files.fd(file).expect("looked up by push").as_raw_fd();
        self.files.begin(file, Stream::Neither);
        let key = self.insert(Flight::on(file, token, held), Step::Outside);
        self.pool.run(key, Job::Plain(work(fd)));
    }

    fn push_socket_work(&mut self, token: u64, file: FileId, held: Held, step: Step) {
        let stream = match step {
            Step::Recv { .. } => Stream::Recv,
            Step::Send { .. } => Stream::Send,
            _ => Stream::Neither,
        };
        let writing = matches!(step, Step::Send { .. } | Step::Connect { .. });
        self.files.begin(file, stream);
        let key = self.insert(
            Flight {
                token,
                file: Some(file.key()),
                stream,
                held,
            },
            step,
        );
        self.enqueue(file.key(), key, writing);
    }

    /// The file, if there is one, is open.
    pub(super) fn dispatch(&mut self, arena: &mut Arena, token: u64, op: Op<'_>) {
        let memory = |pinned: Pinned, len: u32| Memory {
            ptr: pinned.ptr,
            len: len as usize,
        };
        match op {
            Op::ReadAt { file, buf, at } => {
                let (pinned, held) = pin_fill(buf, arena);
                let memory = memory(pinned, buf.len);
                let flags = self.files.rw_flags(file, false);
                self.push_file_work(token, file, held, |fd| FileWork::Read {
                    fd,
                    at,
                    memory,
                    flags,
                });
            }
            Op::WriteAt {
                file,
                buf,
                at,
                durable,
            } => {
                let (pinned, held) = pin_drain(buf, arena);
                let memory = memory(pinned, buf.len);
                let flags = self.files.rw_flags(file, durable);
                self.push_file_work(token, file, held, |fd| FileWork::Write {
                    fd,
                    at,
                    memory,
                    flags,
                });
            }
            Op::DataSync { file } => {
                self.push_file_work(token, file, Held::Nothing, |fd| FileWork::DataSync { fd });
            }
            Op::Fallocate {
                file,
                mode,
                at,
                len,
            } => {
                let mode = mode.flags();
                self.push_file_work(token, file, Held::Nothing, |fd| FileWork::Fallocate {
                    fd,
                    mode,
                    at,
                    len,
                });
            }
            Op::Recv { file, buf, all } => {
                let (pinned, held) = pin_fill(buf, arena);
                let step = Step::Recv {
                    ptr: pinned.ptr,
                    len: buf.len as usize,
                    done: 0,
                    all,
                };
                self.push_socket_work(token, file, held, step);
            }
            Op::Send { file, segments } => {
                let scratch = pin_vector(segments, arena, &mut self.loans, &mut self.scratches);
                self.push_socket_work(token, file, Held::Scratch(scratch), Step::Send { done: 0 });
            }
            Op::Accept { file } => {
                self.push_socket_work(token, file, Held::Nothing, Step::Accept { many: false });
            }
            Op::AcceptMany { file } => {
                self.push_socket_work(token, file, Held::Nothing, Step::Accept { many: true });
            }
            Op::Connect { file, to } => {
                let mut scratch = self.scratches.take();
                if let Err(errno) = scratch.set_address(to) {
                    self.scratches.give(scratch);
                    return self.fail(token, errno);
                }
                let step = Step::Connect { begun: false };
                self.push_socket_work(token, file, Held::Scratch(scratch), step);
            }
            Op::PollIn { file } => {
                self.push_socket_work(token, file, Held::Nothing, Step::PollIn);
            }
            Op::Timeout { at } => {
                let key = self.insert(Flight::bare(token), Step::Outside);
                self.timers.push(Reverse((at, key)));
            }
            Op::Shutdown { file, how } => {
                let fd = self.files.fd(file).expect("looked up above").as_raw_fd();
                let result = work::shutdown(fd, how.raw());
                self.local.push(Completion {
                    token,
                    result,
                    accepted: None,
                    more: false,
                });
            }
            Op::Close { file } => self.close(token, file),
            Op::Blocking(run) => {
                let key = self.insert(Flight::bare(token), Step::Outside);
                self.pool.run(key, Job::Run(run));
            }
        }
    }
}
