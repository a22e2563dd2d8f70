//! A split brain in words: what each side has, which is suggested, what resolving it does.

use std::fmt::Write;

use engine::salvage::Found;
use jiff::Timestamp;

use super::columns;
use crate::api::body::{Generation, Parting, Role, Side, SplitBrainReport};
use crate::cli::splitbrain::name_of;
use crate::config::units::{show_bytes, show_seconds};

/// Bytes of what is called a block here.
const BLOCK: u64 = 4096;

/// Every split brain of a volume, or that there is none.
pub(in crate::cli) fn splitbrain(report: &SplitBrainReport) -> String {
    let volume = &report.volume;
    if report.partings.is_empty() {
        return format!(
            "{volume} is in no split brain that {} knows of\nnext: pollux status {volume}\n",
            report.node
        );
    }
    let mut text = String::new();
    for parting in &report.partings {
        one(&mut text, report, parting);
    }
    text
}

fn one(text: &mut String, report: &SplitBrainReport, parting: &Parting) {
    let (volume, me, other) = (&report.volume, &report.node, &parting.node);
    let found = parting.found_at.split('.').next().unwrap_or_default();
    let _ = writeln!(
        text,
        "{volume}: SPLIT BRAIN: {me} and {other} went on apart; found {found}Z"
    );
    let ancestor = match &parting.ancestor {
        Some(reign) => generation(reign),
        None => "not known: a promotion by force broke with it".to_owned(),
    };
    let width = me.len().max(other.len()).max("common ancestor".len());
    let mut line = |what: &str, says: &str| {
        let _ = writeln!(text, "  {what:<width$}   {says}");
    };
    line("common ancestor", &ancestor);
    line(me, &side(&parting.mine));
    match &parting.theirs {
        Some(theirs) => line(other, &side(theirs)),
        None => line(other, "not known here: it told nothing yet"),
    }
    let overlap = match parting.overlap_bytes {
        Some(0) => "no block was changed on both sides".to_owned(),
        Some(bytes) => format!("up to {} were changed on both sides", blocks(bytes)),
        None => "not known".to_owned(),
    };
    line("overlap", &overlap);
    if let Some(bytes) = parting.differ_bytes {
        line("may differ", &blocks(bytes));
    }
    if !parting.is_current {
        let ago = show_seconds(parting.compared_milliseconds_ago / 1000);
        let _ = writeln!(
            text,
            "note: {other} does not answer now; this was so {ago} ago"
        );
    }
    suggestion(text, report, parting);
}

fn side(side: &Side) -> String {
    let mut says = format!("{}, {}", side.role.word(), side.disk_state.word());
    if let (Some(first), Some(last)) = (side.reigns.first(), side.reigns.last()) {
        match first == last {
            true => {
                let _ = write!(says, ", term {}", first.term);
            }
            false => {
                let _ = write!(says, ", terms {} to {}", first.term, last.term);
            }
        }
    }
    match side.changed_bytes {
        Some(0) => says.push_str("; changed nothing"),
        Some(bytes) => {
            let _ = write!(says, "; changed up to {}", blocks(bytes));
        }
        None => says.push_str("; what it changed is not known: it may be anything"),
    }
    match side.last_write_seconds_ago {
        Some(seconds) => {
            let _ = write!(says, ", last write {} ago", show_seconds(seconds));
        }
        None => says.push_str(", last write not known"),
    }
    let _ = match side.clients {
        1 => write!(says, ", 1 client"),
        count => write!(says, ", {count} clients"),
    };
    says
}

fn generation(reign: &Generation) -> String {
    let branch = reign.branch.get(..8).unwrap_or(&reign.branch);
    format!("term {} of branch {branch}…", reign.term)
}

fn blocks(bytes: u64) -> String {
    match bytes / BLOCK {
        1 => format!("1 block ({})", show_bytes(bytes)),
        count => format!("{count} blocks ({})", show_bytes(bytes)),
    }
}

/// Whose copy is better kept: who serves clients, who wrote last, who wrote more. A hint, no
/// verdict.
fn suggestion(text: &mut String, report: &SplitBrainReport, parting: &Parting) {
    let (volume, me, other) = (&report.volume, &report.node, &parting.node);
    let Some(theirs) = &parting.theirs else {
        let _ = writeln!(
            text,
            "next: bring {other} back, or allow the link: pollux peer connect {other} --volume {volume}"
        );
        return;
    };
    let weight = |side: &Side| {
        let is_primary = side.role == Role::Primary;
        let newest = std::cmp::Reverse(side.last_write_seconds_ago.unwrap_or(u64::MAX));
        let changed = side.changed_bytes.unwrap_or(u64::MAX);
        (is_primary && side.clients > 0, is_primary, newest, changed)
    };
    let (keep, gives_up, is_primary) = match weight(&parting.mine) >= weight(theirs) {
        true => (me, other, theirs.role == Role::Primary),
        false => (other, me, parting.mine.role == Role::Primary),
    };
    let _ = write!(text, "suggestion: keep {keep}.  On {gives_up}: ");
    if is_primary {
        let _ = write!(text, "pollux demote {volume} --disconnect, then ");
    }
    let _ = writeln!(text, "pollux splitbrain resolve {volume} --keep {keep}");
}

/// What resolving does, before it is done.
pub(in crate::cli) fn resolve_plan(report: &SplitBrainReport, parting: &Parting) -> String {
    let (volume, me, keep) = (&report.volume, &report.node, &parting.node);
    let differ = match parting.differ_bytes {
        Some(bytes) => blocks(bytes),
        None => "all blocks that may differ (not known yet)".to_owned(),
    };
    let own = match parting.mine.changed_bytes {
        Some(bytes) => format!("up to {}", blocks(bytes)),
        None => "any number of blocks".to_owned(),
    };
    let primary = match parting.mine.role == Role::Primary {
        true => format!(
            "  refused as it stands: {me} is primary; first: pollux demote {volume} --disconnect\n"
        ),
        false => String::new(),
    };
    format!(
        "{volume}: the copy on {me} is given up, that on {keep} is kept\n\
         {primary}  1. {differ} of {me} go to a salvage file in its data_dir, durably\n\
         \x20 2. the history of {me} ends: {own} that it wrote since are no part of {volume} any more\n\
         \x20 3. {me} is resynced from {keep} with what may differ\n"
    )
}

/// One line per salvage.
pub(in crate::cli) fn salvages(found: &[Found]) -> String {
    if found.is_empty() {
        return "there are no salvages on this node\n".to_owned();
    }
    let rows = found.iter().map(|salvage| {
        let name = name_of(&salvage.path);
        let size = show_bytes(salvage.file_bytes);
        match &salvage.head {
            Ok(head) => {
                let at = Timestamp::from_millisecond(head.created_ms.cast_signed());
                let at = at.map_or("-".to_owned(), |at| at.strftime("%F %TZ").to_string());
                vec![head.volume.clone(), at, head.kept.clone(), size, name]
            }
            Err(why) => vec!["-".into(), why.to_string(), "-".into(), size, name],
        }
    });
    let head = ["VOLUME", "GIVEN UP", "KEPT", "SIZE", "FILE"];
    columns(&head, &rows.collect::<Vec<_>>(), "")
}
