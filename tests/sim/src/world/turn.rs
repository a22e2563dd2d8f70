//! Happenings are carried out, and events are given to cores.

use engine_core::action::Action;
use engine_core::event::Event;
use engine_core::record::Choice;
use engine_core::time::Instant;

use super::{Doom, Fate, Happening, Mend, Struck, World, brief};
use crate::engine::Engine;
use crate::shell::Share;

impl World {
    /// Carries out happenings until nothing is left before `until`, or a law is broken.
    pub fn run_until(&mut self, until: u64) {
        while self.failure.is_none() {
            let Some(next) = self.queue.first_entry().filter(|e| e.key().0 <= until) else {
                break;
            };
            self.now = next.key().0;
            let what = next.remove();
            self.happen(what);
        }
        self.now = self.now.max(until);
    }

    fn is_current(&self, node: usize, life: u64) -> bool {
        self.nodes[node].engine.is_some() && self.nodes[node].life == life
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Step(index) => {
                let step = self.plan.steps[index].1;
                self.step(step);
            }
            Happening::DiskIo { node, life, io } if self.is_current(node, life) => {
                if self.nodes[node].disk.faults.is_hung {
                    self.nodes[node].stalled.push(what);
                } else {
                    self.disk_ended(node, io);
                }
            }
            Happening::MetaIo {
                node,
                life,
                io,
                token,
            } if self.is_current(node, life) => {
                if self.nodes[node].meta.is_hung {
                    self.nodes[node].stalled.push(what);
                } else {
                    self.meta_ended(node, io, token);
                }
            }
            Happening::SumsRead { node, life, read } if self.is_current(node, life) => {
                self.sums_read(node, read);
            }
            Happening::Covered {
                node,
                life,
                token,
                is_covered,
            } if self.is_current(node, life) => self.covered(node, token, is_covered),
            Happening::Kill { node, life, down } if self.is_current(node, life) => {
                self.kill(node, Some(down));
            }
            Happening::Chosen { node, life } if self.is_current(node, life) => {
                self.feed(node, Event::Record(Choice::Chosen));
            }
            Happening::Ballot { from, to, ballot } => self.ballot_arrives(from, to, *ballot),
            Happening::RegisterActs {
                node,
                life,
                number,
                access,
                answer,
            } => {
                // Whoever asked may be dead.
                self.register_acts((node, life, number), access, answer);
            }
            Happening::RegisterAnswers {
                node,
                life,
                number,
                found,
            } if self.is_current(node, life) => {
                self.feed(node, Event::Register { number, found });
            }
            Happening::Arrive { connection, end } => self.arrive(connection, end),
            Happening::Sent { node, life, buf } if self.is_current(node, life) => {
                self.nodes[node].buffers.end_read(buf);
            }
            Happening::Copied {
                node,
                life,
                token,
                from,
                to,
                count,
            } if self.is_current(node, life) => {
                self.copied(node, token, from, to, count);
            }
            Happening::Salvaged {
                node,
                life,
                token,
                result,
                is_commit,
            } if self.is_current(node, life) => {
                self.salvaged(node, token, result, is_commit);
            }
            Happening::Lengthened {
                node,
                life,
                size,
                is_held,
            } if self.is_current(node, life) => {
                self.lengthened(node, size, is_held);
            }
            Happening::BackingGrown {
                node,
                life,
                from,
                size,
            } if self.is_current(node, life) => {
                self.backing_grown(node, from, size);
            }
            Happening::LinkUp { connection, end } => self.link_up(connection, end),
            Happening::LinkDown { connection, end } => self.link_down(connection, end),
            Happening::Connect => self.connect_all(),
            Happening::Wake { node, life } if self.is_current(node, life) => {
                self.nodes[node].wake_at = u64::MAX;
                self.feed(node, Event::Tick);
            }
            Happening::Resume { node } => self.resume(node),
            Happening::Mend(mend) => self.mend(mend),
            Happening::Operate => self.operate(),
            Happening::DiskIo { .. }
            | Happening::Kill { .. }
            | Happening::MetaIo { .. }
            | Happening::Chosen { .. }
            | Happening::RegisterAnswers { .. }
            | Happening::Sent { .. }
            | Happening::Copied { .. }
            | Happening::Salvaged { .. }
            | Happening::SumsRead { .. }
            | Happening::Covered { .. }
            | Happening::Lengthened { .. }
            | Happening::BackingGrown { .. }
            | Happening::Wake { .. } => {}
        }
    }

    /// Gives an event to a node's core, carries its actions out, and checks the laws.
    pub fn feed(&mut self, node: usize, event: Event) {
        if self.nodes[node].engine.is_none() || self.failure.is_some() {
            return;
        }
        if self.nodes[node].paused_until > self.now {
            if !matches!(event, Event::Tick) {
                self.nodes[node].backlog.push_back(event);
            }
            return;
        }
        let mut event = Some(event);
        for turn in 0.. {
            let Some(next) = event.take() else { break };
            self.turn(node, next);
            if self.failure.is_some() || self.nodes[node].engine.is_none() {
                break;
            }
            let now = Instant(self.now);
            let deadline = self.nodes[node]
                .engine
                .as_ref()
                .and_then(Engine::next_deadline);
            if deadline.is_some_and(|d| d <= now) {
                event = Some(Event::Tick);
            }
            if turn > 20_000 {
                self.fail(
                    "L2",
                    format!("node {node} has a deadline in the past for ever"),
                );
            }
        }
        self.arm(node);
        self.check_laws(node);
    }

    fn turn(&mut self, node: usize, event: Event) {
        self.say(|| format!("n{node} <- {}", brief(&event)));
        self.before(node, &event);
        let is_word = matches!(&event, Event::Peer { .. });
        let is_late = matches!(&event, Event::Peer { link, .. } if self.is_dropped(node, *link));
        let mut actions = Vec::new();
        let now = Instant(self.now);
        self.events += 1;
        let machine = &mut self.nodes[node];
        machine.events += 1;
        let doom = machine.doom.filter(|d| machine.events >= d.event);
        let engine = machine.engine.as_mut().expect("the process runs");
        engine.handle(now, event, &mut actions);
        if actions.len() > engine_core::action::ACTIONS_PER_TURN {
            self.fail("D2", format!("{} actions in one turn", actions.len()));
        }
        if is_late {
            self.law_late_words_count_not(node, &actions);
        }
        if is_word {
            self.law_words_are_timely(node, &actions);
        }
        if let Some(doom) = doom {
            self.nodes[node].doom = None;
            if self.meets(node, doom, actions) {
                return;
            }
        } else {
            self.carry_out(node, actions, Share::All);
        }
        if self.failure.is_none() && self.nodes[node].engine.is_some() {
            self.after(node);
        }
    }

    /// The event that the plan waited for; true if the process died in it.
    fn meets(&mut self, node: usize, doom: Doom, actions: Vec<Action>) -> bool {
        let count = actions.len() as u64;
        let survives = matches!(doom.fate, Fate::CutWire(_));
        let share = match doom.actions {
            _ if survives => Share::All,
            Some(kept) => Share::First(kept),
            None => Share::Any,
        };
        self.carry_out(node, actions, share);
        let struck = Struck {
            at: self.now,
            actions: count,
            open_blocks: self.nodes[node].disk.open_blocks().count() as u64,
        };
        self.struck.get_or_insert(struck);
        match doom.fate {
            Fate::Kill => self.kill(node, Some(doom.span)),
            Fate::CutPower(keep) => self.cut_power_exactly(node, keep, false, doom.span),
            Fate::CutPowerInFlight(keep) => self.cut_power_exactly(node, keep, true, doom.span),
            Fate::CutWire(peer) => {
                self.cut(node, peer);
                self.schedule(doom.span, Happening::Mend(Mend::Wire(node, peer)));
            }
        }
        !survives
    }

    fn arm(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(engine) = &self.nodes[node].engine else {
            return;
        };
        let Some(deadline) = engine.next_deadline() else {
            return;
        };
        if deadline.0 < self.nodes[node].wake_at {
            self.nodes[node].wake_at = deadline.0;
            self.schedule_at(deadline.0, Happening::Wake { node, life });
        }
    }
}
