use std::time::Duration;

use engine_core::action::{CommandError, Notice};
use engine_core::units::Term;

use super::*;
use crate::control::Repair;

fn names(nodes: &[String]) -> Names<'_> {
    Names {
        volume: "vm-store",
        own: &nodes[1],
        nodes,
        quorum: Quorum::Majority,
    }
}

/// Commands a hint may give, as the command line takes them.
const SYNTAX: [&str; 8] = [
    "splitbrain show VOL",
    "promote VOL",
    "promote VOL --force",
    "demote VOL",
    "resync status VOL",
    "resync start VOL --from NODE",
    "volume create VOL",
    "peer connect NODE --volume VOL",
];

fn shape(command: &str) -> String {
    let words = command.split(' ').map(|word| match word {
        "vm-store" => "VOL",
        "alpha" | "beta" => "NODE",
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn refusals_name_the_nodes_and_only_commands_that_exist() {
    let nodes = ["alpha".to_owned(), "beta".to_owned()];
    let promote = Request::Promote {
        force: false,
        wait: Duration::ZERO,
    };
    let start = Request::ResyncStart {
        from: "alpha".to_owned(),
    };
    let verify = Request::Verify { repair: Repair::No };
    let alpha = NodeIdx(0);
    let source = Some(alpha);
    let cases = [
        (&promote, CommandError::PrimaryElsewhere(alpha)),
        (&promote, CommandError::Inconsistent { source }),
        (&promote, CommandError::Outdated { source }),
        (&promote, CommandError::NotWhole { better: alpha }),
        (&promote, CommandError::MayHaveGoneOn(alpha)),
        (&promote, CommandError::CannotFound { missing: alpha }),
        (&promote, CommandError::SplitBrain(alpha)),
        (&verify, CommandError::NotConnected(alpha)),
        (&verify, CommandError::NotInSync(alpha)),
        (&verify, CommandError::NotPrimary),
        (&start, CommandError::NotPrimary),
    ];
    for (request, error) in cases {
        let refusal = refusal(names(&nodes), request, &error);
        let hint = refusal.hint.expect("each of these has a way out");
        let text = refusal.text;
        assert!(text.contains("vm-store on beta: "), "{text}");
        if error != CommandError::NotPrimary {
            assert!(text.contains("alpha"), "{text}");
        }
        for command in hint.split("pollux ").skip(1) {
            let command = shape(command.split(';').next().unwrap_or_default());
            assert!(SYNTAX.contains(&command.as_str()), "{command}: {hint}");
        }
    }
}

#[test]
fn why_nodes_stay_is_told_exactly() {
    let nodes = ["alpha".to_owned(), "beta".to_owned()];
    let request = Request::Nodes {
        replicas: Vec::new(),
        witnesses: Vec::new(),
    };
    let cases = [
        (
            CommandError::ReplicasStay,
            "E270",
            "its replicas change only",
        ),
        (
            CommandError::WitnessesStay,
            "E270",
            "its witnesses change only",
        ),
        (CommandError::TooManyWitnesses, "E271", "two witnesses"),
        (
            CommandError::NodeChanging(NodeIdx(0)),
            "E272",
            "alpha comes or goes",
        ),
        (
            CommandError::NeededForMajority(NodeIdx(0)),
            "E273",
            "without alpha",
        ),
        (CommandError::TooManyReplicas, "E282", "five replicas"),
        (
            CommandError::PrimaryLeaves,
            "E283",
            "takes beta away, which is primary",
        ),
        (
            CommandError::NeededCopy(NodeIdx(0)),
            "E284",
            "without the copy on alpha",
        ),
    ];
    for (error, code, why) in cases {
        let refused = refusal(names(&nodes), &request, &error);
        assert_eq!(refused.code, code, "{error:?}");
        let begin = "cannot change the nodes of vm-store on beta: ";
        let text = refused.text;
        assert!(text.starts_with(begin) && text.contains(why), "{text}");
    }
    let gone = is_gone(names(&nodes), &request);
    assert_eq!(gone.code, "E285");
}

#[test]
fn a_peer_is_connected_again_by_its_name() {
    let nodes = ["alpha".to_owned(), "beta".to_owned()];
    let error = CommandError::NotConnected(NodeIdx(0));
    let verify = Request::Verify { repair: Repair::No };
    let hint = refusal(names(&nodes), &verify, &error).hint;
    assert_eq!(
        hint.as_deref(),
        Some("pollux peer connect alpha --volume vm-store")
    );
}

#[test]
fn where_etcd_chooses_no_text_speaks_of_a_majority() {
    let nodes = ["alpha".to_owned(), "beta".to_owned()];
    let by_etcd = Names {
        quorum: Quorum::Register,
        ..names(&nodes)
    };
    let promote = Request::Promote {
        force: false,
        wait: Duration::ZERO,
    };
    let error = || CommandError::NoQuorum {
        missing: NodeSet::only(REGISTER),
    };
    let refused = refusal(by_etcd, &promote, &error());
    let mut texts = vec![refused.text, refused.hint.expect("there is a way out")];
    let notices = [
        Notice::QuorumLost { fails: false },
        Notice::QuorumLost { fails: true },
        Notice::QuorumBack,
        Notice::SteppedDown { term: Term(1) },
        Notice::NotElected { error: error() },
    ];
    texts.extend(notices.iter().map(|told| notice(by_etcd, told).2));
    for text in texts {
        assert!(text.contains("etcd"), "{text}");
        assert!(!text.contains("majority"), "{text}");
    }
}
