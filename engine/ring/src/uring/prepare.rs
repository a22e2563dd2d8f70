//! From an operation to a submission queue entry.

use io_uring::types::{Fd, Fixed, FsyncFlags, TimeoutFlags, Timespec};
use io_uring::{opcode, squeue};

use super::setup::FIXED_BUFFER;
use super::{Kind, Uring};
use crate::arena::{Arena, BufSlice, Pinned};
use crate::files::Stream;
use crate::flight::{Held, pin_drain, pin_fill, pin_segment, pin_vector};
use crate::op::{Errno, Op, Seg};

/// A file as an SQE names it.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Fixed(u32),
    Plain(i32),
}

/// The registered buffer that holds these bytes, where `fixed_bytes` of the arena are registered.
pub(super) fn fixed_buffer(pinned: Pinned, len: u32, fixed_bytes: usize) -> Option<u16> {
    let is_registered = pinned.at + len as usize <= fixed_bytes;
    is_registered.then_some((pinned.at / FIXED_BUFFER) as u16)
}

/// Builds an SQE for either kind of file.
macro_rules! sqe {
    ($target:expr, $fd:ident => $build:expr) => {
        match $target {
            Target::Fixed(slot) => {
                let $fd = Fixed(slot);
                $build.build()
            }
            Target::Plain(raw) => {
                let $fd = Fd(raw);
                $build.build()
            }
        }
    };
}

impl Uring {
    pub(super) fn read_at(
        &self,
        target: Target,
        pinned: Pinned,
        len: u32,
        at: u64,
        flags: i32,
        fixed_bytes: usize,
    ) -> squeue::Entry {
        let ptr = pinned.ptr;
        match fixed_buffer(pinned, len, fixed_bytes) {
            Some(index) => {
                sqe!(target, fd => opcode::ReadFixed::new(fd, ptr, len, index).offset(at).rw_flags(flags))
            }
            None => sqe!(target, fd => opcode::Read::new(fd, ptr, len).offset(at).rw_flags(flags)),
        }
    }

    pub(super) fn write_at(
        &self,
        target: Target,
        pinned: Pinned,
        len: u32,
        at: u64,
        flags: i32,
        fixed_bytes: usize,
    ) -> squeue::Entry {
        let ptr = pinned.ptr;
        match fixed_buffer(pinned, len, fixed_bytes) {
            Some(index) => sqe!(target, fd =>
                opcode::WriteFixed::new(fd, ptr, len, index).offset(at).rw_flags(flags)),
            None => {
                sqe!(target, fd => opcode::Write::new(fd, ptr, len).offset(at).rw_flags(flags))
            }
        }
    }

    /// One piece goes without header and vector.
    fn send(
        &mut self,
        target: Target,
        segments: &[Seg],
        arena: &mut Arena,
    ) -> (squeue::Entry, Held) {
        // WAITALL lets the kernel send the rest itself when the socket's buffer was full.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if let [segment] = segments {
            let base = pin_segment(*segment, arena, &mut self.loans);
            let held = match segment {
                Seg::Arena(slice) => Held::Drain(slice.buf),
                Seg::Region { region, .. } => Held::Region(*region),
            };
            let len = segment.len();
            return (
                sqe!(target, fd => opcode::Send::new(fd, base, len).flags(flags)),
                held,
            );
        }
        let scratch = pin_vector(segments, arena, &mut self.loans, &mut self.scratches);
        let header = &raw const scratch.header;
        let sqe = sqe!(target, fd => opcode::SendMsg::new(fd, header).flags(flags as u32));
        (sqe, Held::Scratch(scratch))
    }

    fn timeout(&mut self, at: u64) -> (squeue::Entry, Held) {
        let mut scratch = self.scratches.take();
        let (seconds, nanos) = (at / 1_000_000_000, (at % 1_000_000_000) as u32);
        // The kernel's seconds are signed.
        scratch.time = Timespec::new()
            .sec(seconds.min(i64::MAX as u64))
            .nsec(nanos);
        let flags = TimeoutFlags::ABS | TimeoutFlags::BOOTTIME;
        let sqe = opcode::Timeout::new(&raw const scratch.time)
            .flags(flags)
            .build();
        (sqe, Held::Scratch(scratch))
    }

    /// Everything but `Close` and `Blocking`: the SQE, what it holds, how its end is read.
    pub(super) fn prepare(
        &mut self,
        target: Target,
        op: &Op<'_>,
        arena: &mut Arena,
    ) -> Result<(squeue::Entry, Held, Kind, Stream), Errno> {
        let plain = |sqe| Ok((sqe, Held::Nothing, Kind::Plain, Stream::Neither));
        match *op {
            Op::ReadAt { file, buf, at } => {
                let (pinned, held) = pin_fill(buf, arena);
                let flags = self.files.rw_flags(file, false);
                let sqe = self.read_at(target, pinned, buf.len, at, flags, self.fixed_bytes);
                Ok((sqe, held, Kind::Plain, Stream::Neither))
            }
            Op::WriteAt {
                file,
                buf,
                at,
                durable,
            } => {
                let (pinned, held) = pin_drain(buf, arena);
                let flags = self.files.rw_flags(file, durable);
                let sqe = self.write_at(target, pinned, buf.len, at, flags, self.fixed_bytes);
                Ok((sqe, held, Kind::Plain, Stream::Neither))
            }
            Op::DataSync { .. } => {
                plain(sqe!(target, fd => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC)))
            }
            Op::Fallocate { mode, at, len, .. } => plain(sqe!(target, fd =>
                opcode::Fallocate::new(fd, len).offset(at).mode(mode.flags()))),
            Op::Recv { buf, all, .. } => {
                let (pinned, held) = pin_fill(buf, arena);
                Ok((
                    recv(target, pinned, buf, all),
                    held,
                    Kind::Plain,
                    Stream::Recv,
                ))
            }
            Op::Send { segments, .. } => {
                let (sqe, held) = self.send(target, segments, arena);
                Ok((sqe, held, Kind::Plain, Stream::Send))
            }
            Op::Accept { .. } => {
                let sqe = sqe!(target, fd =>
                    opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                        .flags(libc::SOCK_CLOEXEC));
                Ok((sqe, Held::Nothing, Kind::Accept, Stream::Neither))
            }
            Op::AcceptMany { .. } => {
                let sqe =
                    sqe!(target, fd => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC));
                Ok((sqe, Held::Nothing, Kind::Accept, Stream::Neither))
            }
            Op::Connect { to, .. } => {
                let mut scratch = self.scratches.take();
                if let Err(errno) = scratch.set_address(to) {
                    self.scratches.give(scratch);
                    return Err(errno);
                }
                let (address, len) = ((&raw const scratch.address).cast(), scratch.address_len);
                let sqe = sqe!(target, fd => opcode::Connect::new(fd, address, len));
                Ok((sqe, Held::Scratch(scratch), Kind::Plain, Stream::Neither))
            }
            Op::PollIn { .. } => {
                plain(sqe!(target, fd => opcode::PollAdd::new(fd, libc::POLLIN as u32)))
            }
            Op::Shutdown { how, .. } => {
                plain(sqe!(target, fd => opcode::Shutdown::new(fd, how.raw())))
            }
            Op::Timeout { at } => {
                let (sqe, held) = self.timeout(at);
                Ok((sqe, held, Kind::Timeout, Stream::Neither))
            }
            Op::Close { .. } | Op::Blocking(_) => unreachable!("handled by push"),
        }
    }
}

fn recv(target: Target, pinned: Pinned, buf: BufSlice, all: bool) -> squeue::Entry {
    let flags = if all { libc::MSG_WAITALL } else { 0 };
    sqe!(target, fd => opcode::Recv::new(fd, pinned.ptr, buf.len).flags(flags))
}
