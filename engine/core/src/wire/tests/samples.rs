//! Messages of every type: fixed ones with telling values, and generated ones.

use std::sync::Arc;

use proptest::prelude::*;

use crate::generation::{Chain, Entry};
use crate::message::*;
use crate::quorum::CopyState;
use crate::record::Record;
use crate::table::{NodeKind, Table};
use crate::units::{Extent, NodeIdx, NodeSet, Seq, Term};
use crate::vote::{Ballot, Said, Vote};

const MAX: u64 = crate::wire::COUNTER_MAX;

pub(super) fn stamp() -> Stamp {
    Stamp {
        seq: Seq(5),
        term: Term(0x201),
        stable: Seq(4),
        durable: Seq(3),
        shipped: Seq(2),
    }
}

pub(super) fn record() -> Record {
    Record {
        term: Term(0x201),
        step: 7,
        primary: NodeIdx(1),
        in_sync: NodeSet(3),
        branch: 0xcc,
        voters: NodeSet(7),
        is_released: true,
    }
}

pub(super) fn chain() -> Chain {
    let entries = vec![Entry::new(0xaa, Term(0x100)), Entry::new(0xcc, Term(0x201))];
    Chain::from_entries(entries).unwrap()
}

pub(super) fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 2,
        features_required: 3,
        features_offered: 4,
        cluster: "lab".into(),
        volume: "pg".into(),
        from: "alpha".into(),
        to: "beta".into(),
        volume_id: 0xaabb,
        slice: 6,
        size_granules: 40_000,
        granule_bytes: 4096,
        config_digest: 0x1122_3344_5566_7788,
        incarnation: 0xdead,
        life: Life { count: 3, id: 0x99 },
        knows: Known {
            incarnation: 0xbeef,
            life: Life { count: 2, id: 0x77 },
        },
        chain: chain(),
        record: Some(record()),
        promised: Term(0x301),
        leads: Some(Reign {
            term: Term(0x301),
            members: NodeSet(5),
        }),
        disk: Disk::UpToDate,
        is_primary: true,
        has_votes: true,
        is_whole: false,
        activity_log_slots: 1024,
        credit_operations: 256,
        credit_bytes: 32 << 20,
    }
}

pub(super) fn ballot() -> Ballot {
    Ballot {
        volume_id: 0xaabb,
        incarnation: 0xdead,
        nodes: 0x0c_0b0a,
        life: Life { count: 3, id: 0x99 },
        knows: Life { count: 2, id: 0x77 },
        vote: Vote::Answer {
            term: Term(0x401),
            is_trial: true,
            said: Said::Busy,
            promised: Term(0x301),
            record: Some(record()),
            copy: CopyState {
                disk: Disk::UpToDate,
                is_whole: true,
            },
        },
    }
}

/// The same speaker says its table.
pub(super) fn table() -> Ballot {
    let names = ["alpha", "beta", "eps"].map(str::to_owned);
    let table = Table::of_file(&names, 2).with_newcomer(Term(0x401), "zeta", NodeKind::Witness);
    Ballot {
        vote: Vote::Table {
            table: Arc::new(table.expect("an index is free")),
            is_answer: true,
        },
        ..ballot()
    }
}

/// One message of every type, with the length of its payload.
pub(super) fn one_of_each() -> Vec<(Message, u32)> {
    let (status, id) = (Status::NoSpace, 9);
    let extent = Extent::new(8, 10);
    let runs = vec![Extent::new(1, 2), Extent::new(4, 9)];
    vec![
        (Message::Hello(Box::new(hello())), 0),
        (Message::Refuse(Refusal::Leaving), 0),
        (
            Message::Runs {
                runs: runs.clone(),
                last: true,
            },
            0,
        ),
        (
            Message::State {
                is_primary: true,
                disk: Disk::Outdated,
            },
            0,
        ),
        (
            Message::Record {
                record: record(),
                chain: chain(),
                lives: Box::new([0x11, 0x22, 0, 0, 0, 0, 0, 0x88]),
            },
            0,
        ),
        (
            Message::RecordAck {
                term: Term(0x201),
                step: 7,
            },
            0,
        ),
        (Message::Adopt { volume_id: 0xaabb }, 0),
        (Message::AdoptAck, 0),
        (
            Message::Data {
                stamp: stamp(),
                extent,
                durable: true,
            },
            8192,
        ),
        (
            Message::Zero {
                stamp: stamp(),
                extent,
                zeroing: Zeroing::Allocate,
                durable: true,
            },
            0,
        ),
        (
            Message::Ack {
                seq: Seq(5),
                status,
            },
            0,
        ),
        (
            Message::Flush {
                round: 1,
                epoch: 2,
                writes: 3,
            },
            0,
        ),
        (Message::FlushAck { round: 1, status }, 0),
        (Message::Progress { stamp: stamp() }, 0),
        (
            Message::SetAttr(SetAttr {
                number: 3,
                term: Term(0x201),
                is_first: true,
                is_last: false,
                key: "marks".into(),
                value: vec![7, 8, 9],
            }),
            0,
        ),
        (Message::SetAttrAck { number: 3, status }, 0),
        (
            Message::MarkPage(MarkPage {
                number: 4,
                term: Term(0x201),
                mark: 0xccdd,
                page: 5,
                grain: 1,
                words: vec![0, 6],
            }),
            0,
        ),
        (
            Message::ResyncOffer {
                dirty: 77,
                by_checksum: true,
            },
            0,
        ),
        (Message::MapRequest { from: 78 }, 0),
        (Message::Map { runs, last: false }, 0),
        (
            Message::ResyncRequest {
                id,
                extent,
                sums: vec![1, 2],
            },
            0,
        ),
        (Message::ResyncData { id, extent }, 8192),
        (Message::ResyncZero { id, extent }, 0),
        (Message::ResyncEqual { id }, 0),
        (Message::ResyncFailed { id }, 0),
        (Message::ResyncAck { id, status }, 0),
        (
            Message::ResyncPause {
                paused: true,
                rate: 5,
            },
            0,
        ),
        (
            Message::ResyncAsk {
                id,
                extent,
                hashes: vec![1, 2 << 64],
            },
            0,
        ),
        (
            Message::ResyncDiffer {
                id,
                runs: vec![Extent::new(8, 9)],
            },
            0,
        ),
        (
            Message::HashRequest {
                id,
                extent,
                each: 16,
            },
            0,
        ),
        (
            Message::HashReply {
                id,
                status: Status::Ok,
                hashes: vec![3],
            },
            0,
        ),
        (Message::ReadRequest { id, extent }, 0),
        (
            Message::ReadReply {
                id,
                status: Status::Ok,
            },
            4096,
        ),
        (Message::SumRequest { id, extent }, 0),
        (
            Message::SumReply {
                id,
                status: Status::Ok,
                sums: vec![3, 4],
            },
            0,
        ),
        (
            Message::Parted(Parted {
                gives_up: true,
                needs_vote: false,
                clients: 3,
                last_write_ms: Some(0x1234),
            }),
            0,
        ),
        (Message::GrowAsk { size: 9 }, 0),
        (
            Message::GrowAnswer {
                size: 9,
                max: 8,
                status: Status::Refused,
            },
            0,
        ),
    ]
}

fn terms() -> impl Strategy<Value = Term> {
    (0..MAX >> 8, 0u64..8).prop_map(|(counter, author)| Term(counter << 8 | author))
}

fn seqs() -> impl Strategy<Value = Seq> {
    (0..=MAX).prop_map(Seq)
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (seqs(), terms(), seqs(), seqs(), seqs()).prop_map(|(seq, term, stable, durable, shipped)| {
        Stamp {
            seq,
            term,
            stable,
            durable,
            shipped,
        }
    })
}

fn extents(max: u64) -> impl Strategy<Value = Extent> {
    let len = prop_oneof![4 => 1..=max.min(20), 1 => 1..=max];
    (0u64..1 << 51, len).prop_map(|(start, len)| Extent::new(start, start + len))
}

fn records() -> impl Strategy<Value = Record> {
    let sets = (1u8.., any::<u8>(), any::<bool>());
    (terms(), 0u32..=u32::MAX / 2, 0u8..8, sets, any::<u128>()).prop_map(
        |(term, step, primary, (in_sync, voters, is_released), branch)| Record {
            term,
            step,
            primary: NodeIdx(primary),
            in_sync: NodeSet(in_sync),
            voters: NodeSet(voters),
            is_released,
            branch,
        },
    )
}

fn chains() -> impl Strategy<Value = Chain> {
    prop::collection::btree_map(terms(), any::<(u128, bool)>(), 0..=64).prop_map(|entries| {
        let entries = entries.into_iter().map(|(term, (branch, is_empty))| Entry {
            is_empty,
            ..Entry::new(branch, term)
        });
        Chain::from_entries(entries.collect()).unwrap()
    })
}

fn statuses() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![
        Status::Ok,
        Status::Io,
        Status::NoSpace,
        Status::Refused,
    ])
}

fn disks() -> impl Strategy<Value = Disk> {
    prop::sample::select(vec![
        Disk::Blank,
        Disk::Inconsistent,
        Disk::Outdated,
        Disk::UpToDate,
        Disk::Failed,
    ])
}

fn refusals() -> impl Strategy<Value = Refusal> {
    use Refusal::*;
    prop::sample::select(vec![
        Protocol,
        Feature,
        Cluster,
        Volume,
        VolumeId,
        Size,
        ConfigDigest,
        Diverged,
        Unrelated,
        TwoPrimaries,
        Operator,
        Breach,
        Leaving,
        OlderData,
    ])
}

fn zeroings() -> impl Strategy<Value = Zeroing> {
    prop::sample::select(vec![Zeroing::Trim, Zeroing::MayTrim, Zeroing::Allocate])
}

fn hellos() -> impl Strategy<Value = Hello> {
    let name = || "[a-zß☃]{0,80}";
    (
        any::<(u16, u16, u64, u64, u128, u32, u64)>(),
        (name(), name(), name(), name()),
        any::<(u32, u64, u128, bool, bool, u32, u32, u64, u64, u64)>(),
        chains(),
        prop::option::of(records()),
        disks(),
    )
        .prop_map(
            |(a, (cluster, volume, from, to), b, chain, record, disk)| Hello {
                protocol_min: a.0,
                protocol_max: a.1,
                features_required: a.2,
                features_offered: a.3,
                cluster,
                volume,
                from,
                to,
                volume_id: a.4,
                slice: a.5,
                size_granules: a.6,
                granule_bytes: b.0,
                config_digest: b.1,
                incarnation: b.2,
                life: Life {
                    count: b.8,
                    id: b.9,
                },
                knows: Known {
                    incarnation: a.4,
                    life: Life {
                        count: b.9,
                        id: b.8,
                    },
                },
                chain,
                record,
                promised: record.map_or(Term(0), |r| r.term),
                leads: record.map(|r| Reign {
                    term: Term(r.term.0 | 1 << 8),
                    members: r.in_sync,
                }),
                has_votes: b.3,
                disk,
                is_primary: b.3,
                is_whole: b.4,
                activity_log_slots: b.5,
                credit_operations: b.6,
                credit_bytes: b.7,
            },
        )
}

fn runs() -> impl Strategy<Value = Vec<Extent>> {
    prop::collection::vec(extents(1 << 40), 0..=RUNS_MAX)
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(MAX), 0..=MAX]
}

/// A message and the length of its payload.
pub(super) fn messages() -> impl Strategy<Value = (Message, u32)> {
    let piece = || extents(RESYNC_PIECE_GRANULES);
    let large = || extents(8192);
    let opening = prop_oneof![
        hellos().prop_map(|hello| Message::Hello(Box::new(hello))),
        refusals().prop_map(Message::Refuse),
        (runs(), any::<bool>()).prop_map(|(runs, last)| Message::Runs { runs, last }),
        (any::<bool>(), disks()).prop_map(|(is_primary, disk)| Message::State { is_primary, disk }),
        (records(), chains(), any::<[u128; 8]>()).prop_map(|(record, chain, lives)| {
            Message::Record {
                record,
                chain,
                lives: Box::new(lives),
            }
        }),
        (terms(), 0u32..=u32::MAX / 2).prop_map(|(term, step)| Message::RecordAck { term, step }),
        any::<u128>().prop_map(|volume_id| Message::Adopt { volume_id }),
        Just(Message::AdoptAck),
    ];
    let writing = prop_oneof![
        (stamps(), large(), any::<bool>()).prop_map(|(stamp, extent, durable)| Message::Data {
            stamp,
            extent,
            durable
        }),
        (stamps(), large(), zeroings(), any::<bool>()).prop_map(
            |(stamp, extent, zeroing, durable)| Message::Zero {
                stamp,
                extent,
                zeroing,
                durable
            }
        ),
        (seqs(), statuses()).prop_map(|(seq, status)| Message::Ack { seq, status }),
        (numbers(), numbers(), numbers()).prop_map(|(round, epoch, writes)| Message::Flush {
            round,
            epoch,
            writes
        }),
        (numbers(), statuses()).prop_map(|(round, status)| Message::FlushAck { round, status }),
        stamps().prop_map(|stamp| Message::Progress { stamp }),
    ];
    let syncing = prop_oneof![
        (numbers(), any::<bool>())
            .prop_map(|(dirty, by_checksum)| Message::ResyncOffer { dirty, by_checksum }),
        numbers().prop_map(|from| Message::MapRequest { from }),
        (runs(), any::<bool>()).prop_map(|(runs, last)| Message::Map { runs, last }),
        (numbers(), piece(), any::<bool>(), any::<u64>()).prop_map(
            |(id, extent, has_sums, seed)| {
                let sums = if has_sums {
                    extent.start..extent.end
                } else {
                    0..0
                };
                Message::ResyncRequest {
                    id,
                    extent,
                    sums: sums.map(|n| n ^ seed).collect(),
                }
            }
        ),
        (numbers(), piece()).prop_map(|(id, extent)| Message::ResyncData { id, extent }),
        (numbers(), piece()).prop_map(|(id, extent)| Message::ResyncZero { id, extent }),
        numbers().prop_map(|id| Message::ResyncEqual { id }),
        numbers().prop_map(|id| Message::ResyncFailed { id }),
        (numbers(), statuses()).prop_map(|(id, status)| Message::ResyncAck { id, status }),
        any::<(bool, u64)>().prop_map(|(paused, rate)| Message::ResyncPause { paused, rate }),
        (numbers(), large()).prop_map(|(id, extent)| Message::ReadRequest { id, extent }),
        (numbers(), statuses()).prop_map(|(id, status)| Message::ReadReply { id, status }),
        (numbers(), piece()).prop_map(|(id, extent)| Message::SumRequest { id, extent }),
        (
            numbers(),
            statuses(),
            prop::collection::vec(any::<u64>(), 0..=256)
        )
            .prop_map(|(id, status, sums)| Message::SumReply { id, status, sums }),
        (any::<(bool, bool, u32)>(), prop::option::of(numbers())).prop_map(
            |((gives_up, needs_vote, clients), last_write_ms)| {
                Message::Parted(Parted {
                    gives_up,
                    needs_vote,
                    clients,
                    last_write_ms,
                })
            }
        ),
    ];
    let hashing = prop_oneof![
        (numbers(), piece(), any::<u128>()).prop_map(|(id, extent, seed)| {
            let hashes = (extent.start..extent.end).map(|n| u128::from(n) ^ seed);
            Message::ResyncAsk {
                id,
                extent,
                hashes: hashes.collect(),
            }
        }),
        (numbers(), prop::collection::vec(piece(), 1..=128))
            .prop_map(|(id, runs)| Message::ResyncDiffer { id, runs }),
        (numbers(), piece(), 1..=u32::MAX).prop_map(|(id, extent, each)| Message::HashRequest {
            id,
            extent,
            each
        }),
        (
            numbers(),
            statuses(),
            prop::collection::vec(any::<u128>(), 0..=256)
        )
            .prop_map(|(id, status, hashes)| Message::HashReply { id, status, hashes }),
    ];
    let attributes =
        prop_oneof![
            (
                numbers(),
                terms(),
                any::<(bool, bool)>(),
                "[a-z]{0,30}",
                prop::collection::vec(any::<u8>(), 0..=300)
            )
                .prop_map(|(number, term, (is_first, is_last), key, value)| {
                    Message::SetAttr(SetAttr {
                        number,
                        term,
                        is_first,
                        is_last,
                        key,
                        value,
                    })
                }),
            (numbers(), statuses())
                .prop_map(|(number, status)| Message::SetAttrAck { number, status }),
            numbers().prop_map(|size| Message::GrowAsk { size }),
            (numbers(), numbers(), statuses())
                .prop_map(|(size, max, status)| Message::GrowAnswer { size, max, status }),
            (
                numbers(),
                terms(),
                any::<(u128, u32, u32)>(),
                prop::collection::vec(any::<u64>(), 0..=504)
            )
                .prop_map(|(number, term, (mark, page, grain), words)| {
                    Message::MarkPage(MarkPage {
                        number,
                        term,
                        mark,
                        page,
                        grain,
                        words,
                    })
                }),
        ];
    (
        prop_oneof![opening, writing, syncing, attributes, hashing],
        1u32..=8193,
    )
        .prop_map(|(message, granules)| {
            let payload_len = match &message {
                Message::Data { extent, .. } | Message::ResyncData { extent, .. } => {
                    extent.bytes() as u32
                }
                Message::ReadReply {
                    status: Status::Ok, ..
                } => granules * 4096,
                _ => 0,
            };
            (message, payload_len)
        })
}
