//! Votes on the control connection: promises, records, leases.
//!
//! ```text
//!  Vote  0: volume id u128 | 16: incarnation u128 | 32: term u64 | 40: promised u64
//!       48: number u64 (Stored: the step; Release: the next node's index + 1) | 56: admits u128 (Lease: its length, milliseconds)
//!       72: kind u8 | 73: said u8 | 74: disk u8 | 75: bits: trial, yes, has record, whole
//!       76: length of the volume's name u8 | 77: digest of the nodes' names u24
//!       80: record, 32 bytes, zeros without one
//!      112: life: count u64, id u64 | 128: known life of the other: count u64, id u64
//!       lists: the volume's name in UTF-8
//!  Table as Vote, kind 9, number: bytes of the table;  lists: the volume's name, the table (`table.rs`)
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::message::Disk;
use crate::quorum::CopyState;
use crate::table::{TABLE_BYTES_MAX, Table};
use crate::units::{NODES_MAX, NodeIdx, Term};
use crate::vote::{Ballot, Said, Vote};
use crate::wire::bytes::{Body, Writer};
use crate::wire::codes::Code;
use crate::wire::error::{BadField, WireError};

const TRIAL: u8 = 1;
const YES: u8 = 2;
const RECORD: u8 = 4;
const WHOLE: u8 = 8;

const ASK: u8 = 1;
const ANSWER: u8 = 2;
const STORE: u8 = 3;
const STORED: u8 = 4;
const LEASE: u8 = 5;
const GRANTED: u8 = 6;
const RELEASE: u8 = 7;
const HAND_OVER: u8 = 8;
const TABLE: u8 = 9;

/// All fields that any kind has.
struct Flat {
    kind: u8,
    term: Term,
    promised: Term,
    number: u64,
    admits: u128,
    record: Option<crate::record::Record>,
    said: Said,
    disk: Disk,
    bits: u8,
}

impl Flat {
    fn of(vote: &Vote) -> Flat {
        let bit = |holds: bool, bit: u8| if holds { bit } else { 0 };
        let mut flat = Flat {
            kind: ASK,
            term: Term(0),
            promised: Term(0),
            number: 0,
            admits: 0,
            record: None,
            said: Said::Promised,
            disk: Disk::Blank,
            bits: 0,
        };
        match *vote {
            Vote::Ask { term, is_trial } => {
                (flat.term, flat.bits) = (term, bit(is_trial, TRIAL));
            }
            Vote::Answer {
                term,
                is_trial,
                said,
                promised,
                record,
                copy,
            } => {
                (flat.kind, flat.term, flat.promised) = (ANSWER, term, promised);
                (flat.said, flat.record, flat.disk) = (said, record, copy.disk);
                flat.bits = bit(is_trial, TRIAL) | bit(copy.is_whole, WHOLE);
            }
            Vote::Store { record, admits } => {
                (flat.kind, flat.record, flat.admits) = (STORE, Some(record), admits);
                flat.term = record.term;
            }
            Vote::Stored {
                term,
                step,
                is_stored,
                promised,
            } => {
                (flat.kind, flat.term, flat.promised) = (STORED, term, promised);
                (flat.number, flat.bits) = (u64::from(step), bit(is_stored, YES));
            }
            Vote::Lease {
                term,
                number,
                length,
            } => {
                (flat.kind, flat.term, flat.number) = (LEASE, term, number);
                flat.admits = length.as_millis();
            }
            Vote::Granted {
                term,
                number,
                is_granted,
                promised,
            } => {
                (flat.kind, flat.term, flat.promised) = (GRANTED, term, promised);
                (flat.number, flat.bits) = (number, bit(is_granted, YES));
            }
            Vote::Release { term, to } => {
                (flat.kind, flat.term) = (RELEASE, term);
                flat.number = to.map_or(0, |node| u64::from(node.0) + 1);
            }
            Vote::HandOver { term } => (flat.kind, flat.term) = (HAND_OVER, term),
            Vote::Table {
                ref table,
                is_answer,
            } => {
                (flat.kind, flat.bits) = (TABLE, bit(is_answer, YES));
                flat.number = table.encode().len() as u64;
            }
        }
        flat.bits |= bit(flat.record.is_some(), RECORD);
        flat
    }

    /// `table`: the bytes that a table is in.
    fn vote(self, table: &[u8]) -> Option<Vote> {
        let has = |bit: u8| self.bits & bit != 0;
        let (term, promised, number) = (self.term, self.promised, self.number);
        Some(match self.kind {
            ASK => Vote::Ask {
                term,
                is_trial: has(TRIAL),
            },
            ANSWER => Vote::Answer {
                term,
                is_trial: has(TRIAL),
                said: self.said,
                promised,
                record: self.record,
                copy: CopyState {
                    disk: self.disk,
                    is_whole: has(WHOLE),
                },
            },
            STORE => Vote::Store {
                record: self.record?,
                admits: self.admits,
            },
            STORED => Vote::Stored {
                term,
                step: u32::try_from(number).ok()?,
                is_stored: has(YES),
                promised,
            },
            LEASE => Vote::Lease {
                term,
                number,
                length: Duration::from_millis(u64::try_from(self.admits).ok()?),
            },
            GRANTED => Vote::Granted {
                term,
                number,
                is_granted: has(YES),
                promised,
            },
            RELEASE => Vote::Release {
                term,
                to: next_node(number)?,
            },
            HAND_OVER => Vote::HandOver { term },
            TABLE => Vote::Table {
                table: Arc::new(Table::decode(table).ok()?),
                is_answer: has(YES),
            },
            _ => return None,
        })
    }
}

/// Outer `None`: no node has this index.
fn next_node(number: u64) -> Option<Option<NodeIdx>> {
    match number {
        0 => Some(None),
        1.. if number <= NODES_MAX as u64 => Some(Some(NodeIdx(number as u8 - 1))),
        _ => None,
    }
}

pub(super) fn put(volume: &str, ballot: &Ballot, w: &mut Writer) {
    let flat = Flat::of(&ballot.vote);
    w.u128(ballot.volume_id);
    w.u128(ballot.incarnation);
    w.u64(flat.term.0);
    w.u64(flat.promised.0);
    w.u64(flat.number);
    w.u128(flat.admits);
    w.u8(flat.kind);
    w.u8(flat.said.code());
    w.u8(flat.disk.code());
    w.u8(flat.bits);
    w.text_len(volume);
    let [a, b, c, _] = ballot.nodes.to_le_bytes();
    [a, b, c].into_iter().for_each(|byte| w.u8(byte));
    match &flat.record {
        Some(record) => w.record(record),
        None => w.zeros::<32>(),
    }
    w.life(ballot.life);
    w.life(ballot.knows);
    w.lists();
    w.bytes(volume.as_bytes());
    if let Vote::Table { table, .. } = &ballot.vote {
        w.bytes(&table.encode());
    }
}

pub(super) fn take(body: &mut Body) -> Result<(String, Ballot), WireError> {
    let Body { fields: f, lists } = body;
    let (volume_id, incarnation) = (f.u128()?, f.u128()?);
    let (term, promised, number, admits) = (f.term()?, f.term()?, f.u64()?, f.u128()?);
    let (kind, said, disk, bits) = (f.u8()?, Said::take(f)?, Disk::take(f)?, f.u8()?);
    let (len, nodes) = (f.u8()?, [f.u8()?, f.u8()?, f.u8()?, 0]);
    let record = if bits & RECORD != 0 {
        Some(f.record()?)
    } else {
        f.skip::<32>()?;
        None
    };
    let (life, knows) = match f.is_empty() {
        true => Default::default(),
        false => (f.life()?, f.life()?),
    };
    let flat = Flat {
        kind,
        term,
        promised,
        number,
        admits,
        record,
        said,
        disk,
        bits,
    };
    let volume = lists.text(len)?;
    let table = match flat.kind {
        TABLE => {
            let len = usize::try_from(number)
                .ok()
                .filter(|len| *len <= TABLE_BYTES_MAX);
            lists.bytes(len.ok_or_else(|| f.bad(BadField::Vote))?)?
        }
        _ => &[],
    };
    let vote = flat.vote(table).ok_or_else(|| f.bad(BadField::Vote))?;
    let ballot = Ballot {
        volume_id,
        incarnation,
        nodes: u32::from_le_bytes(nodes),
        life,
        knows,
        vote,
    };
    Ok((volume, ballot))
}
