//! Files of the ring: their slots in the kernel's tables, and closing them.

use std::os::fd::{AsRawFd, OwnedFd};

use super::prepare::Target;
use super::setup::place_file;
use super::{Entry, Kind, Uring, side};
use crate::access::Access;
use crate::flight::Flight;
use crate::op::{Completion, FileId};
use crate::pool::Job;
use crate::slab::Key;

impl Uring {
    pub(super) fn take(&mut self, fd: OwnedFd, access: Access) -> FileId {
        let raw = fd.as_raw_fd();
        let id = self.files.register(fd, access);
        if id.slot < self.fixed_slots {
            let beside = side::which(access).and_then(|which| self.side(which));
            let fixed = place_file(&self.parts, id.slot, raw)
                && beside.is_none_or(|side| side.place_file(id.slot, raw));
            self.files.set_fixed(id, fixed);
        }
        id
    }

    pub(super) fn target(&self, id: FileId) -> Option<Target> {
        let file = self.files.open(id)?;
        Some(if file.fixed {
            Target::Fixed(id.slot)
        } else {
            Target::Plain(file.fd.as_raw_fd())
        })
    }

    /// How an SQE names a file that is open or being closed.
    pub(super) fn target_of(&self, file: Key) -> Option<Target> {
        let entry = self.files.get(file)?;
        Some(if entry.fixed {
            Target::Fixed(file.slot)
        } else {
            Target::Plain(entry.fd.as_raw_fd())
        })
    }

    /// Empties a file's slot in every ring that has it.
    pub(super) fn unplace(&self, slot: u32, is_fixed: bool) {
        if is_fixed {
            place_file(&self.parts, slot, -1);
            let sides = self.sides.iter().flatten();
            sides.for_each(|side| side.clear_file(slot));
        }
    }

    pub(super) fn close(&mut self, token: u64, file: FileId) {
        let flight = Flight::bare(token);
        let key = self.entries.insert(Entry {
            flight,
            kind: Kind::Outside,
            queued: false,
        });
        if self.files.close(file, key.to_u64()) {
            self.finish_close(file.key());
        } else {
            self.cancel_where(|flight| flight.file == Some(file.key()));
        }
    }

    /// The file is idle: closes it. Files and devices may take long over it (last close flushes),
    /// so a worker does; sockets do not.
    pub(super) fn finish_close(&mut self, file: Key) {
        let Some(file_entry) = self.files.remove(file) else {
            return;
        };
        self.unplace(file.slot, file_entry.fixed);
        let Some(close) = file_entry.closing.map(Key::from_u64) else {
            return;
        };
        if !file_entry.socket {
            let fd = file_entry.fd;
            self.pool.run(
                close,
                Job::Run(Box::new(move || {
                    drop(fd);
                    Ok(0)
                })),
            );
            return;
        }
        drop(file_entry);
        if let Some(entry) = self.entries.remove(close) {
            let token = entry.flight.token;
            self.local.push(Completion {
                token,
                result: Ok(0),
                accepted: None,
                more: false,
            });
        }
    }
}
