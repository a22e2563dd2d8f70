//! One run: first safety under the plan's faults, then liveness: heal everything and demand
//! progress, equal disks and clean metadata within a bound.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine_core::event::Command;

use crate::engine::Bug;
use crate::plan::Plan;
use crate::swarm::MS;
use crate::world::{Failure, Mend, Struck, World};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The first broken law.
    pub failure: Option<Failure>,
    /// What happened how often.
    pub coverage: BTreeMap<&'static str, u64>,
    /// Events handled by all cores.
    pub events: u64,
    /// What was to happen at an event of a node, and did.
    pub struck: Option<Struck>,
}

impl Report {
    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.coverage.get(what).copied().unwrap_or(0)
    }
}

/// Virtual time within which everything must be well again once all faults are gone.
const HEAL_WITHIN: u64 = 60_000 * MS;
const ANSWER_WITHIN: u64 = 20_000 * MS;

/// Carries a plan out. A panic of the core is a failure like any other.
pub fn run(plan: &Plan, bug: Option<Bug>, is_verbose: bool) -> Report {
    carry_out(World::new(plan.clone(), bug, is_verbose))
}

/// As [`run`], slower: what the laws keep from event to event is also computed anew, and compared.
pub fn run_thoroughly(plan: &Plan, bug: Option<Bug>) -> Report {
    let mut world = World::new(plan.clone(), bug, false);
    world.is_thorough = true;
    carry_out(world)
}

fn carry_out(mut world: World) -> Report {
    let outcome = catch_unwind(AssertUnwindSafe(|| whole(&mut world)));
    if let Err(panic) = outcome {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()))
            .unwrap_or_default();
        world.fail("assertion", text);
    }
    Report {
        failure: world.failure,
        coverage: world.coverage,
        events: world.events,
        struck: world.struck,
    }
}

fn whole(world: &mut World) {
    let end = world.plan.steps.last().map_or(0, |(at, _)| *at) + 5 * MS;
    world.run_until(end);
    heal(world);
    finish(world);
}

fn heal(world: &mut World) {
    world.say(|| "healing begins".into());
    world.operator.is_healing = true;
    for (a, b) in world.net.pairs() {
        world.mend(Mend::Wire(a, b));
        world.mend(Mend::Calm(a, b));
        let now = world.now;
        let wire = world.net.wire(a, b);
        wire.stalled_until = now;
        wire.double_one_in = 0;
        for (node, peer) in [(a, b), (b, a)] {
            if !world.is_witness(node) && !world.is_witness(peer) {
                world.mend(Mend::Reconnect(node, peer));
            }
        }
    }
    world.mend_register();
    world.want_a_third_voter();
    world.want_all_replicas();
    for node in world.everybody() {
        for mend in [
            Mend::Reads,
            Mend::Room,
            Mend::Speed,
            Mend::Hang,
            Mend::MetaHang,
            Mend::Resync,
        ] {
            world.mend(mend(node));
        }
        world.nodes[node].doom = None;
        world.nodes[node].meta_doom = None;
        world.nodes[node].disk.faults.flush_error_once = false;
        if !world.nodes[node].is_condemned {
            world.nodes[node].disk.faults.write_error = false;
            world.nodes[node].meta.has_failed = false;
        }
        world.command(node, Command::ResyncRate(0));
        world.nodes[node].disk.trick = None;
    }
    if world.is_alone() {
        world.undo_all_damage();
    }
    await_health(world);
}

/// L1: everything is well within a bound of time.
fn await_health(world: &mut World) {
    let bound = world.now + HEAL_WITHIN;
    while (!world.is_healthy() || world.is_resolving()) && world.failure.is_none() {
        if world.now > bound {
            let text = format!("stuck: nothing is wrong any more, and {}", states(world));
            return world.fail("L1", text);
        }
        world.run_until(world.now + 10 * MS);
    }
}

fn states(world: &World) -> String {
    let nodes: Vec<String> = world
        .all()
        .map(|n| match &world.nodes[n].engine {
            Some(engine) => format!("node {n} says {}", engine.describe()),
            None => format!("node {n} is down"),
        })
        .collect();
    format!(
        "{}; {} requests wait",
        nodes.join("; "),
        world.clients.outstanding()
    )
}

/// Waits until no client waits.
fn settle(world: &mut World, what: &str) {
    let bound = world.now + ANSWER_WITHIN;
    while world.clients.outstanding() > 0 && world.failure.is_none() {
        if world.now > bound {
            let text = format!("stuck: {what}, {}", states(world));
            return world.fail("L1", text);
        }
        world.run_until(world.now + 2 * MS);
    }
}

fn finish(world: &mut World) {
    if world.failure.is_some() {
        return;
    }
    world.close_all();
    settle(world, "sessions do not close");
    world.last_words();
    settle(world, "the last requests are not answered");
    world.close_all();
    settle(world, "the last session does not close");
    await_idle_disks(world);
    await_health(world);
    scrub_all(world);
    await_health(world);
    world.run_until(world.now + 60 * MS);
    while world.failure.is_none() && !world.is_healthy() {
        // A crash amid the giving up of a copy was on its way.
        await_health(world);
        world.run_until(world.now + 60 * MS);
    }
    if world.failure.is_some() {
        return;
    }
    world.law_nobody_is_owed_to_leave();
    let pairs = world.net.pairs().into_iter();
    let pairs: Vec<_> = pairs.filter(|(_, b)| !world.is_witness(*b)).collect();
    for (a, b) in pairs {
        if let Some(granule) = world.differences(a, b).iter().next() {
            let text = format!("at the end nodes {a} and {b} differ in granule {granule}");
            return world.fail("R8", text);
        }
    }
    world.law_marks_say_enough();
    world.law_rot_is_found_and_repaired();
    stop_all(world);
    world.law_marks_say_enough();
    world.finish_history();
}

/// F10: what was found is repaired, and a scrub finds the rest, whatever a disk did to its copy.
fn scrub_all(world: &mut World) {
    if world.plan.settings.sum_pages == 0 {
        return;
    }
    // Of a single copy what was found is undone by now: only a scrub says so.
    if !world.is_alone() {
        await_repair(world, World::is_repaired);
        world.law_nothing_found_is_left();
    }
    // One that runs already may have been there before the damage: it ends first.
    for is_last in [false, true] {
        for node in world.all() {
            world.command(node, Command::Scrub { rate: 0 });
        }
        let is_whole = is_last || !world.is_alone();
        await_repair(world, |w| w.is_scrubbed() && (!is_whole || w.is_repaired()));
    }
    world.note_scrubbed();
    world.law_damage_was_found();
}

fn await_repair(world: &mut World, is_done: impl Fn(&World) -> bool) {
    let bound = world.now + HEAL_WITHIN;
    while world.failure.is_none() && !is_done(world) {
        if world.now > bound {
            let text = format!("stuck: damage is not repaired, {}", states(world));
            return world.fail("F10", text);
        }
        world.run_until(world.now + 5 * MS);
    }
}

/// What a slow disk was asked long ago ends, or the disk is given up and replaced: who stops with
/// work under way is not clean.
fn await_idle_disks(world: &mut World) {
    let bound = world.now + ANSWER_WITHIN;
    let is_busy = |w: &World| w.nodes.iter().any(|n| !n.pending.is_empty());
    while world.now < bound && world.failure.is_none() && is_busy(world) {
        world.run_until(world.now + 5 * MS);
    }
}

/// O4: everybody stops in order, and what is left is clean.
fn stop_all(world: &mut World) {
    world.operator.is_closing = true;
    // Rounds that began meanwhile.
    await_idle_disks(world);
    let primaries = world.primaries();
    let mut order: Vec<usize> = world.all().filter(|n| primaries.contains(n)).collect();
    order.extend(world.everybody().filter(|n| !primaries.contains(n)));
    for node in order {
        world.stop_for_good(node);
        let bound = world.now + 10_000 * MS;
        while world.nodes[node].engine.is_some() && world.failure.is_none() {
            if world.now > bound {
                let text = format!("node {node} does not stop: {}", states(world));
                return world.fail("O4", text);
            }
            world.run_until(world.now + 2 * MS);
        }
    }
    for node in world.all() {
        if world.failure.is_some() {
            return;
        }
        match world.found(node) {
            Err(why) => world.fail("O4", format!("node {node} stopped and left {why}")),
            Ok(found) if !found.is_clean => {
                world.fail("O4", format!("node {node} stopped and is not marked clean"));
            }
            Ok(_) => {
                let disk = &world.nodes[node].disk;
                let lost = disk
                    .unsynced()
                    .map(|(b, _)| b)
                    .find(|b| disk.durable_block(*b) != disk.live().block(*b));
                if let Some(block) = lost {
                    let text = format!("node {node} stopped and block {block} is not durable");
                    world.fail("O4", text);
                }
                world.law_all_is_known(node);
            }
        }
    }
}
