//! How a volume leaves its reactor: clients, core, links, files, in this order.

use engine_core::event::Command;
use engine_core::volume::RoleStatus;
use engine_ring::{FileId, Op};

use super::Reactor;
use super::commands::{answer, refuse};
use super::volumes::{Leaving, Pending};
use crate::backend::Store;
use crate::control::{Done, Outcome, Refusal, RefusalKind};
use crate::front_end::DrainReason;
use crate::mailbox::{Leave, Reply};
use crate::token::{Kind, Token};

impl Reactor {
    pub(super) fn leave(&mut self, name: &str, leave: Leave, reply: Reply<Outcome>) {
        let Some(slot) = self.find(name) else {
            return reply(Ok(Done::Already(format!("{name} is not attached"))));
        };
        let volume = self.volumes.get_mut(slot).expect("it was just found");
        let is_primary = volume.driver.core.status().role != RoleStatus::Secondary;
        let is_alone = volume.is_alone();
        if leave == Leave::Delete {
            if volume.clients > 0 {
                return reply(Err(self.clients_attached(slot, "delete")));
            }
            if is_primary && !is_alone {
                let text = format!("cannot delete {name}: it is primary here");
                let hint = Some(format!("pollux demote {name}"));
                return reply(Err(Refusal {
                    kind: RefusalKind::Failed,
                    code: "E211",
                    text,
                    hint,
                }));
            }
        }
        if matches!(
            volume.leaving,
            Some(Leaving::Stopping | Leaving::Ending(..) | Leaving::Closing(..))
        ) {
            return reply(Err(refuse("E215", format!("{name} is being stopped"))));
        }
        if let Some(Leaving::Clients(_, pending)) = volume.leaving.take() {
            answer(
                pending,
                Err(refuse("E219", format!("{name} is being stopped"))),
            );
        }
        volume.is_admitting = false;
        volume.publish();
        volume.entry.note_role(is_primary);
        volume.is_handed_over = leave == Leave::HandOver;
        volume.driver.keeps_lease = volume.is_handed_over;
        volume.leaving = Some(Leaving::Clients(Command::Stop, Pending::Leave(reply)));
        let why = match leave {
            Leave::NodeStops => DrainReason::NodeStops,
            Leave::HandOver => DrainReason::HandOver,
            Leave::Delete => DrainReason::VolumeLeaves,
        };
        self.drain_clients(slot, why);
    }

    pub(super) fn settle(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        match volume.leaving.take() {
            None => {}
            Some(Leaving::Clients(command, pending)) if volume.clients == 0 => {
                let is_stop = command == Command::Stop;
                volume.command(command, pending);
                volume.leaving = is_stop.then_some(Leaving::Stopping);
                self.is_pressed = true;
            }
            Some(Leaving::Ending(outcome, reply)) => {
                volume.driver.forget_delayed(&mut self.shell);
                let is_idle = volume.driver.in_ring == 0 && !self.links.has_volume(slot);
                if !is_idle || volume.driver.is_due(self.shell.now) {
                    volume.leaving = Some(Leaving::Ending(outcome, reply));
                    return;
                }
                let mut files = vec![volume.driver.meta];
                if let Store::Disk(disk) = &volume.driver.store {
                    files.push(disk.file);
                }
                volume.leaving = Some(Leaving::Closing(files.len() as u32, outcome, reply));
                files
                    .into_iter()
                    .for_each(|file| self.close_file(slot, file));
            }
            other => volume.leaving = other,
        }
    }

    fn close_file(&mut self, slot: u32, file: FileId) {
        let token = Token::new(Kind::File, slot, 0).0;
        self.shell
            .ring
            .push(&mut self.shell.arena, token, Op::Close { file });
    }

    /// A file of a volume that leaves is closed; with the last one it is gone, its locks with it.
    pub(super) fn file_closed(&mut self, slot: u32) {
        let Some(volume) = self.volumes.get_mut(slot) else {
            return;
        };
        match volume.leaving.take() {
            Some(Leaving::Closing(1, outcome, reply)) => {
                self.volumes.remove(slot);
                self.set_polling();
                reply(outcome);
            }
            Some(Leaving::Closing(left, outcome, reply)) => {
                volume.leaving = Some(Leaving::Closing(left - 1, outcome, reply));
            }
            other => volume.leaving = other,
        }
    }
}
