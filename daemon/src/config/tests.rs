use std::path::Path;
use std::time::Duration;

use engine::control::Backing;

use super::*;

mod links;

const GOOD: &str = r#"
[cluster]
name = "lab"
quorum = "off"
[node.alpha]
data_dir = "/var/lib/pollux/alpha"
address  = "127.0.0.1:8790"
nbd      = "127.0.0.1:10809"
api      = "127.0.0.1:8792"
[node.beta]
data_dir = "/var/lib/pollux/beta"
address  = "127.0.0.1:8890"
nbd_socket = "nbd.sock"
[volume.vm-store]
size = "1GiB"
backing = "vm-store.img"
replicas = ["alpha", "beta"]
write_policy = "written"
nbd = [{ name = "vm-store" }]
[volume.scratch]
size = "4096B"
backing = "memory"
replicas = ["beta"]
[[volume.scratch.nbd]]
read_only = true
allow = ["10.0.0.0/24", "::1"]
"#;

fn read(source: &str) -> Loaded {
    Loaded::parse(Path::new("pollux.toml"), source.to_owned())
}

/// Findings as `code line:column text`.
fn findings(source: &str) -> Vec<String> {
    let loaded = read(source);
    let show = |found: &Diagnostic| {
        let (line, column) = found.position(&loaded.source);
        format!("{} {line}:{column} {}", found.code, found.text)
    };
    loaded.diagnostics.iter().map(show).collect()
}

/// `GOOD` with `from` replaced by `to`, and what is then found besides what `GOOD` has.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    let usual = ["W001", "W004"];
    let found = findings(&GOOD.replacen(from, to, 1)).into_iter();
    found
        .filter(|found| !usual.iter().any(|code| found.starts_with(code)))
        .collect()
}

#[test]
fn a_good_file_has_warnings_only() {
    let loaded = read(GOOD);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["W001", "W004"]);
    assert_eq!((loaded.errors(), loaded.warnings()), (0, 2));
}

#[test]
fn a_node_runs_the_volumes_it_holds_with_paths_below_its_data_dir() {
    let loaded = read(GOOD);
    let alpha = loaded.config.node_spec(&loaded.config.nodes[0]);
    assert_eq!(alpha.name, "alpha");
    assert_eq!(
        alpha.peers[1],
        ("beta".to_owned(), vec!["127.0.0.1:8890".to_owned()])
    );
    assert_eq!(alpha.keepalive, Duration::from_millis(500));
    assert_eq!(alpha.volumes.len(), 1);
    assert_eq!(alpha.volumes[0].size_bytes, 1 << 30);
    assert_eq!(
        alpha.volumes[0].backing,
        Some(Backing::Path("/var/lib/pollux/alpha/vm-store.img".into()))
    );
    let beta = loaded.config.node_spec(&loaded.config.nodes[1]);
    assert_eq!(
        beta.nbd_socket,
        Some("/var/lib/pollux/beta/nbd.sock".into())
    );
    let names: Vec<&str> = beta.volumes.iter().map(|volume| &*volume.name).collect();
    assert_eq!(names, ["vm-store", "scratch"]);
    let export = &beta.volumes[1].nbd[0];
    assert_eq!((export.name.as_str(), export.read_only), ("scratch", true));
    assert_eq!(export.allow, ["10.0.0.0/24", "::1/128"]);
}

#[test]
fn the_only_node_holds_every_volume_that_names_none() {
    let source = r#"
[cluster]
name = "lab"
[node.alpha]
[volume.v]
size = "1MiB"
backing = "/dev/vg0/v"
"#;
    let loaded = read(source);
    assert_eq!(findings(source), Vec::<String>::new());
    let spec = loaded.config.node_spec(&loaded.config.nodes[0]);
    assert_eq!(spec.data_dir, Path::new("/var/lib/pollux"));
    assert_eq!(spec.volumes[0].replicas, ["alpha"]);
    assert_eq!(
        spec.volumes[0].backing,
        Some(Backing::Path("/dev/vg0/v".into()))
    );
}

/// Two nodes with data and a diskless third one.
const VOTING: &str = r#"
[cluster]
name = "lab"
[node.alpha]
address = "127.0.0.1:8790"
[node.beta]
address = "127.0.0.1:8890"
[node.gamma]
address = "127.0.0.1:8990"
diskless = true
[volume.v]
size = "1MiB"
backing = "v.img"
replicas = ["alpha", "beta"]
[volume.lone]
size = "1MiB"
backing = "lone.img"
replicas = ["alpha"]
"#;

#[test]
fn three_voters_choose_by_majority_without_being_told() {
    let loaded = read(VOTING);
    assert_eq!(findings(VOTING), Vec::<String>::new());
    let spec = |node: usize| loaded.config.node_spec(&loaded.config.nodes[node]);
    let alpha = spec(0).volumes;
    let votes = &alpha[0].votes;
    assert_eq!(votes.quorum, engine::control::Quorum::Majority);
    assert_eq!(votes.witnesses, ["gamma"]);
    assert_eq!(votes.lease, Duration::from_secs(2));
    assert!(votes.auto_promote);
    assert_eq!(votes.on_quorum_loss, QuorumLoss::Freeze);
    assert_eq!(alpha[1].votes, engine::control::Votes::default());
    // The witness runs what it votes on, without a place for data.
    let gamma = spec(2).volumes;
    assert_eq!(gamma.len(), 1);
    assert_eq!((&*gamma[0].name, &gamma[0].backing), ("v", &None));
}

/// `VOTING` without its witness, and etcd in the place of votes.
fn by_etcd(more: &str) -> String {
    let text = VOTING.replace("name = \"lab\"", "name = \"lab\"\ncontrol = \"etcd\"");
    let text = text.replace(", \"beta\"]", ", \"beta\"]\nauto_promote = true");
    format!("{text}{more}")
}

/// What is found besides that this build may not know etcd.
fn found_of_etcd(more: &str) -> Vec<String> {
    let found = findings(&by_etcd(more)).into_iter();
    found.filter(|found| !found.starts_with("E240")).collect()
}

const ETCD: &str = "[etcd]\nendpoints = [\"http://127.0.0.1:2379\", \"http://[::1]:2379\"]\n";

#[test]
fn a_program_without_etcd_refuses_it_and_one_with_it_does_not() {
    let found = findings(&by_etcd(ETCD));
    match engine::control::HAS_ETCD {
        true => assert_eq!(found, Vec::<String>::new()),
        false => assert_eq!(found, ["E240 4:11 this program was built without etcd"]),
    }
}

#[test]
fn etcd_has_the_one_vote_and_replicas_are_all_a_volume_has() {
    let loaded = read(&by_etcd(ETCD));
    let alpha = loaded.config.node_spec(&loaded.config.nodes[0]);
    let votes = &alpha.volumes[0].votes;
    assert_eq!(votes.quorum, engine::control::Quorum::Register);
    assert_eq!(votes.witnesses, Vec::<String>::new());
    assert_eq!(alpha.volumes[1].votes, engine::control::Votes::default());
    let etcd = alpha.etcd.expect("the file has the table");
    assert_eq!(
        etcd.endpoints,
        ["http://127.0.0.1:2379", "http://[::1]:2379"]
    );
    assert_eq!((etcd.ca, etcd.identity), (None, None));
    // gamma holds nothing, and has no vote.
    let gamma = loaded.config.node_spec(&loaded.config.nodes[2]);
    assert_eq!(gamma.volumes, []);
    let pems = "ca = \"/etc/ca.pem\"\ncert = \"/etc/c.pem\"\nkey = \"/etc/k.pem\"\n";
    let far = "[etcd]\nendpoints = [\"https://etcd-1:2379\"]\n";
    assert_eq!(found_of_etcd(&format!("{far}{pems}")), Vec::<String>::new());
}

#[test]
fn what_etcd_cannot_be_asked_with_is_found() {
    let endpoints = |list: &str| format!("[etcd]\nendpoints = [{list}]\n");
    for (more, expected) in [
        (String::new(), "E004 4:11 the table [etcd] is missing"),
        (
            "[etcd]\n".into(),
            "E004 21:1 `endpoints` is missing in [etcd]",
        ),
        (
            endpoints("\"127.0.0.1:2379\""),
            "E005 22:14 an endpoint of [etcd] must be http://host:port or https://host:port",
        ),
        (
            endpoints("\"http://10.0.0.1:2379\""),
            "E241 22:14 etcd is asked without TLS, and is not on this machine",
        ),
        (
            endpoints("\"https://10.0.0.1:2379\""),
            "E004 21:1 `ca` is missing in [etcd]",
        ),
        (
            format!("{ETCD}cert = \"/c.pem\"\n"),
            "E004 23:8 `key` is missing in [etcd]",
        ),
        (
            format!("{ETCD}ca = \"ca.pem\"\n"),
            "E005 23:6 `ca` of [etcd] must be an absolute path",
        ),
    ] {
        assert_eq!(found_of_etcd(&more), [expected]);
    }
    let voters = format!("{VOTING}{ETCD}");
    assert_eq!(findings(&voters), ["E013 19:1 [etcd] has no effect"]);
    let two = by_etcd(ETCD).replace("control", "quorum = \"off\"\ncontrol");
    let found = findings(&two);
    let contradiction = "E013 4:10 `quorum` is off, and etcd is to choose records";
    assert!(found.contains(&contradiction.to_owned()), "{found:?}");
    let witness = by_etcd(ETCD).replace("auto_promote = true", "witnesses = [\"gamma\"]");
    let found = findings(&witness);
    let unasked = "E013 16:13 volume v has witnesses, and etcd chooses its records";
    assert!(found.contains(&unasked.to_owned()), "{found:?}");
}

#[test]
fn what_a_majority_cannot_be_made_of_is_found() {
    let three = "replicas = [\"alpha\", \"beta\"]";
    let off = "name = \"lab\"\nquorum = \"off\"";
    for (from, to, expected) in [
        ("name = \"lab\"", off, "W001 4:10 quorum is off"),
        (
            three,
            "replicas = [\"alpha\", \"gamma\"]",
            "E013 14:22 volume v wants a replica on gamma",
        ),
        (
            three,
            "replicas = [\"alpha\", \"beta\"]\nwitnesses = []",
            "E011 14:12 `quorum` is missing",
        ),
        (
            three,
            "replicas = [\"alpha\", \"beta\"]\nwitnesses = [\"beta\"]",
            "E013 15:14 beta has a replica",
        ),
        (
            three,
            "replicas = [\"alpha\", \"beta\"]\nwitnesses = [\"delta\"]",
            "E007 15:14 volume v wants a witness",
        ),
        (
            three,
            "replicas = [\"alpha\", \"beta\"]\nwitnesses = [\"gamma\", \"gamma\"]",
            "E009 15:23 volume v names witness gamma twice",
        ),
        (
            "address = \"127.0.0.1:8990\"\n",
            "",
            "E004 8:7 diskless node gamma has no `address`",
        ),
    ] {
        assert!(VOTING.contains(from), "{from}");
        let found = findings(&VOTING.replacen(from, to, 1));
        assert!(
            found.iter().any(|found| found.starts_with(expected)),
            "{to}: {expected} is not among {found:#?}"
        );
    }
    let plain = VOTING.replace("diskless = true\n", "");
    let three = plain.replacen("\"beta\"]", "\"beta\", \"gamma\"]", 1);
    assert_eq!(findings(&three), Vec::<String>::new());
    let off = three.replacen("name = \"lab\"", off, 1);
    assert!(
        findings(&off)
            .iter()
            .any(|f| f.starts_with("E013 14:12 volume v has 3 replicas"))
    );
}

#[test]
fn each_slip_is_found_where_it_stands() {
    for (from, to, expected) in [
        (
            "name = \"lab\"",
            "name = 7",
            "E003 3:8 `name` of [cluster] must be a string",
        ),
        (
            "name = \"lab\"\n",
            "",
            "E004 2:1 `name` is missing in [cluster]",
        ),
        (
            "\"lab\"",
            "\"a b\"",
            "E006 3:8 \"a b\" cannot be the name of a cluster",
        ),
        (
            "quorum = \"off\"\n",
            "",
            "E011 16:12 `quorum` is missing in [cluster], and a volume has more than one replica",
        ),
        (
            "\"off\"",
            "\"on\"",
            "E005 4:10 `quorum` of [cluster] cannot be \"on\"",
        ),
        (
            "\"off\"",
            "\"majority\"",
            "W012 4:10 volume vm-store has two voters: when either is lost, I/O stops on both",
        ),
        (
            "quorum =",
            "lease = \"400ms\"\nquorum =",
            "E005 4:9 `lease` of [cluster] is out of range",
        ),
        (
            "nbd_socket = \"nbd.sock\"",
            "diskless = true",
            "E013 17:22 volume vm-store wants a replica on beta, which is diskless",
        ),
        (
            "replicas = [\"alpha\", \"beta\"]",
            "replicas = [\"alpha\", \"beta\"]\nwitnesses = [\"beta\"]",
            "E013 18:13 volume vm-store has witnesses, and quorum is off",
        ),
        (
            "write_policy = \"written\"",
            "on_promote = [\"virtual-ip\"]",
            "E005 18:14 `on_promote` of [volume.vm-store] names no program",
        ),
        (
            "write_policy = \"written\"",
            "on_demote = []",
            "E005 18:13 `on_demote` of [volume.vm-store] names no program",
        ),
        (
            "write_policy = \"written\"",
            "hook_timeout = \"1h\"",
            "E005 18:16 `hook_timeout` of [volume.vm-store] is out of range",
        ),
        (
            "write_policy = \"written\"",
            "resync_rate = \"0B\"",
            "E005 18:15 `resync_rate` of [volume.vm-store] is 0: a resync would never end",
        ),
        (
            "write_policy = \"written\"",
            "verify_every = \"5s\"",
            "E005 18:16 `verify_every` of [volume.vm-store] is out of range",
        ),
        (
            "quorum =",
            "keepalive = \"2s\"\nquorum =",
            "E013 4:13 `peer_timeout` must be at least two times `keepalive`",
        ),
        (
            "quorum =",
            "keepalive = \"0s\"\nquorum =",
            "E005 4:13 `keepalive` of [cluster] is out of range",
        ),
        (
            "[node.alpha]",
            "[node.\"al/pha\"]",
            "E006 5:7 \"al/pha\" cannot be the name of a node",
        ),
        (
            "\"127.0.0.1:10809\"",
            "\"127.0.0.1\"",
            "E005 8:12 `nbd` of [node.alpha] must be host:port",
        ),
        (
            "\"127.0.0.1:10809\"",
            "\"0.0.0.0:10809\"",
            "E010 8:12 nbd of node alpha would listen beyond loopback",
        ),
        (
            "\"127.0.0.1:10809\"",
            "\"127.0.0.1:8790\"",
            "E009 8:12 replication and nbd of node alpha cannot both listen on port 8790",
        ),
        (
            "\"127.0.0.1:8890\"",
            "\"127.0.0.1:8790\"",
            "E009 12:12 nodes alpha and beta have the same address",
        ),
        (
            "address  = \"127.0.0.1:8890\"\n",
            "",
            "E004 16:22 volume vm-store is replicated, but node beta has no `address`",
        ),
        (
            "api      = \"127.0.0.1:8792\"",
            "reactors = 0",
            "E005 9:12 `reactors` of [node.alpha] is out of range",
        ),
        (
            "api      = \"127.0.0.1:8792\"",
            "insecure = [\"ndb\"]",
            "E005 9:13 `insecure` names no listener \"ndb\"",
        ),
        (
            "\"nbd.sock\"",
            "\"pollux.sock\"",
            "E009 13:14 `nbd_socket` of node beta is the socket of its API",
        ),
        (
            "\"1GiB\"",
            "\"1Gib\"",
            "E005 15:10 `size` of [volume.vm-store]: `Gib` is no unit",
        ),
        (
            "\"1GiB\"",
            "4096",
            "E003 15:8 `size` of [volume.vm-store] must be a string",
        ),
        (
            "\"1GiB\"",
            "\"1000B\"",
            "E005 15:8 `size` of [volume.vm-store] must be a multiple of 4096 bytes",
        ),
        (
            "\"vm-store.img\"",
            "\"volumes/x\"",
            "E009 16:11 `backing` of volume vm-store lies where the daemon keeps state",
        ),
        (
            "\"alpha\", \"beta\"",
            "\"alpha\", \"bta\"",
            "E007 17:22 volume vm-store wants a replica on an unknown node",
        ),
        (
            "\"alpha\", \"beta\"",
            "\"alpha\", \"alpha\"",
            "E009 17:22 volume vm-store names node alpha twice",
        ),
        (
            "[\"alpha\", \"beta\"]",
            "[]",
            "E005 17:12 volume vm-store has no replica",
        ),
        (
            "\"written\"",
            "\"local\"",
            "E008 18:16 this version does not implement write_policy = \"local\"",
        ),
        (
            "write_policy = \"written\"",
            "min_copies = 3",
            "E013 18:14 `min_copies` of volume vm-store asks for 3 of 2 replicas",
        ),
        (
            "write_policy = \"written\"",
            "reads = \"peer\"",
            "E005 18:9 `reads` of [volume.vm-store] cannot be \"peer\"",
        ),
        (
            "write_policy = \"written\"",
            "cache = \"cached\"",
            "E005 18:9 `cache` of [volume.vm-store] cannot be \"cached\"",
        ),
        (
            "write_policy",
            "write_polcy",
            "E002 18:1 unknown key `write_polcy` in [volume.vm-store]",
        ),
        (
            "nbd = [{ name = \"vm-store\" }]",
            "nbd = { name = \"vm-store\" }",
            "E003 19:7 `nbd` of [volume.vm-store] must be an array of tables, as in [{ name = \
             \"vm-store\" }]",
        ),
        (
            "name = \"vm-store\"",
            "name = \"scratch\"",
            "E009 24:1 two exports of one node are named \"scratch\"",
        ),
        (
            "\"10.0.0.0/24\"",
            "\"10.0.0.9/24\"",
            "E005 26:10 `allow` cannot hold \"10.0.0.9/24\": bits are set beyond the prefix",
        ),
        (
            "read_only = true",
            "tls = \"require\"",
            "E013 25:7 export scratch asks for TLS, but node beta has none",
        ),
        (
            "[volume.scratch]",
            "[volume.-x]",
            "E006 20:9 \"-x\" cannot be the name of a volume",
        ),
    ] {
        assert_eq!(changed(from, to)[0], expected, "{from} -> {to}");
    }
}

#[test]
fn what_one_key_lacks_does_not_hide_another() {
    let source =
        "[cluster]\nnam = \"x\"\n[node.a]\nnbd = 1\n[volume.v]\nsize = \"1\"\nbaking = 2\n";
    assert_eq!(
        findings(source),
        [
            "E002 2:1 unknown key `nam` in [cluster]",
            "E003 4:7 `nbd` of [node.a] must be a string",
            "E005 6:9 `size` of [volume.v]: the unit is missing",
            "E002 7:1 unknown key `baking` in [volume.v]",
        ]
    );
}

#[test]
fn a_listener_off_loopback_is_a_warning_once_it_is_named_insecure() {
    let to = "\"10.0.0.1:10809\"\ninsecure = [\"nbd\"]";
    assert_eq!(
        changed("\"127.0.0.1:10809\"", to),
        ["W002 8:12 nbd of node alpha has neither TLS nor a password"]
    );
}

#[test]
fn clients_are_waited_for_as_long_as_the_file_says() {
    let to = "\"nbd.sock\"\nnbd_handshake_timeout = \"3s\"\nnbd_stall_timeout = \"500ms\"";
    assert_eq!(
        changed("\"nbd.sock\"", to),
        ["E005 15:21 `nbd_stall_timeout` of [node.beta] is out of range"]
    );
}

#[test]
fn each_node_may_keep_its_replica_elsewhere() {
    let to = "{ alpha = \"/dev/vg0/v\", beta = \"memory\" }";
    assert_eq!(changed("\"vm-store.img\"", to), Vec::<String>::new());
    let loaded = read(&GOOD.replace("\"vm-store.img\"", to));
    let backing = |index: usize| {
        let spec = loaded.config.node_spec(&loaded.config.nodes[index]);
        spec.volumes[0].backing.clone()
    };
    assert_eq!(backing(0), Some(Backing::Path("/dev/vg0/v".into())));
    assert_eq!(backing(1), Some(Backing::Memory));
    for (to, finding) in [
        (
            "{ alpha = \"a.img\" }",
            "E004 17:22 `backing` of volume vm-store says nothing of beta",
        ),
        (
            "{ alpha = \"a.img\", beta = \"b.img\", gamma = \"c.img\" }",
            "E007 16:46 `backing` of volume vm-store names gamma, which holds no replica",
        ),
        (
            "{ alpha = \"a.img\", beta = \"volumes/x\" }",
            "E009 16:37 `backing` of volume vm-store lies where the daemon keeps state",
        ),
        (
            "{ alpha = \"a.img\", beta = 5 }",
            "E003 16:37 `beta` of `backing` of [volume.vm-store] must be a string",
        ),
    ] {
        let found = changed("\"vm-store.img\"", to);
        assert!(found.contains(&finding.to_owned()), "{to}: {found:?}");
    }
}

#[test]
fn two_volumes_of_one_node_cannot_share_a_backing() {
    assert_eq!(
        changed("\"memory\"", "\"/var/lib/pollux/beta/vm-store.img\""),
        ["E009 22:11 volumes vm-store and scratch have the same backing"]
    );
    // On different nodes the same relative path is two files.
    assert_eq!(
        changed(
            "replicas = [\"beta\"]",
            "replicas = [\"beta\"]\nallocation = \"full\""
        ),
        Vec::<String>::new()
    );
}

#[test]
fn a_socket_path_over_107_bytes_is_refused() {
    let long = |bytes: usize| format!("\"/{}\"", "d".repeat(bytes - "/pollux.sock".len() - 1));
    assert_eq!(
        changed("\"/var/lib/pollux/alpha\"", &long(107)),
        Vec::<String>::new()
    );
    let found = changed("\"/var/lib/pollux/alpha\"", &long(108));
    assert!(found[0].starts_with("E005 6:12 the path of the socket `pollux.sock` is too long"));
    let found = changed("\"nbd.sock\"", &format!("\"{}\"", "s".repeat(100)));
    assert!(found[0].starts_with("E005 13:14 the path of the socket `nbd_socket` is too long"));
}

#[test]
fn all_syntax_errors_are_found_and_nothing_else() {
    let found = findings("[cluster]\nname = \"lab\nquorum = off\nx = 1\n[volume.v]\nsize = \n");
    assert!(
        found.iter().all(|found| found.starts_with("E001 ")),
        "{found:?}"
    );
    let lines: Vec<&str> = found.iter().map(|found| &found[5..6]).collect();
    assert_eq!(lines, ["2", "3", "6"], "{found:?}");
}

#[test]
fn columns_count_characters() {
    let found = findings("[cluster]\nname = \"lab\"\n\"ü\" = 1\n[node.a]\nx = 1\n");
    assert_eq!(found[0], "E002 3:1 unknown key `ü` in [cluster]");
    let found = findings("cluster = { \"ü\" = 1, name = 2 }\n[node.a]\n");
    assert_eq!(found[1], "E003 1:29 `name` of [cluster] must be a string");
}

#[test]
fn an_empty_file_says_what_must_stand_in_it() {
    assert_eq!(
        findings(""),
        [
            "E004 1:1 the table [cluster] is missing",
            "E004 1:1 the file names no node"
        ]
    );
}

#[test]
fn no_prefix_of_a_file_and_no_broken_byte_stops_the_reader() {
    for end in 0..=GOOD.len() {
        let loaded = read(&GOOD[..end]);
        loaded.render(false);
    }
    for at in 0..GOOD.len() {
        for replacement in ["\"", "[", "=", "\u{1}", "ü", "\n"] {
            let mut source = GOOD.to_owned();
            source.replace_range(at..=at, replacement);
            let loaded = read(&source);
            for found in &loaded.diagnostics {
                found.position(&source);
            }
        }
    }
}

#[test]
fn the_node_is_the_named_one_the_only_one_or_the_host() {
    let two = read(GOOD).config;
    let name = |node: &Node| node.name.value.clone();
    assert_eq!(
        select_node(&two, Some("beta"), "alpha").map(name).unwrap(),
        "beta"
    );
    assert_eq!(select_node(&two, None, "alpha").map(name).unwrap(), "alpha");
    assert_eq!(
        select_node(&two, None, "beta.example.org")
            .map(name)
            .unwrap(),
        "beta"
    );
    let unknown = select_node(&two, None, "gamma").unwrap_err();
    assert_eq!((unknown.exit.number(), &*unknown.code), (2, "E102"));
    let slip = select_node(&two, Some("bta"), "alpha").unwrap_err();
    assert_eq!(slip.exit.number(), 2);
    assert_eq!(slip.hint.as_deref(), Some("did you mean --node beta?"));
    let mut one = two.clone();
    one.nodes.truncate(1);
    assert_eq!(select_node(&one, None, "gamma").map(name).unwrap(), "alpha");
}

#[test]
fn only_listeners_that_are_open_count_as_insecure() {
    let to = "\"0.0.0.0:10809\"\ninsecure = [\"nbd\", \"replication\"]";
    let loaded = read(&GOOD.replacen("\"127.0.0.1:10809\"", to, 1));
    assert_eq!(loaded.errors(), 0);
    let alpha = &loaded.config.nodes[0];
    assert_eq!(alpha.insecure_words(), ["nbd"]);
    // A wildcard stands for no machine; clients dial what peers dial.
    let host = "127.0.0.1".to_owned();
    assert_eq!(
        alpha.nbd_tcp(),
        Some(nbd_proto::Transport::Tcp { host, port: 10809 })
    );
}

const TLS: &str = r#"
[cluster]
name = "lab"
[node.alpha]
data_dir = "/var/lib/pollux"
nbd = "10.0.0.1:10809"
nbd_socket = "nbd.sock"
[node.alpha.nbd_tls]
cert = "tls/server-cert.pem"
key = "/etc/pollux/tls/server-key.pem"
client_ca = "tls/ca-cert.pem"
[volume.v]
size = "1MiB"
backing = "v.img"
[[volume.v.nbd]]
allow_subjects = ["CN=hyper1", "DNS=hyper2,O=Example"]
attach = "takeover"
default = true
"#;

fn changed_tls(from: &str, to: &str) -> Vec<String> {
    assert!(TLS.contains(from), "{from}");
    findings(&TLS.replacen(from, to, 1))
}

#[test]
fn beyond_loopback_tls_is_asked_for_and_nearer_only_if_so_said() {
    assert_eq!(findings(TLS), Vec::<String>::new());
    let needs = |source: &str| {
        let node = &read(source).config.nodes[0];
        (node.nbd_tcp_needs_tls(), node.nbd_socket_needs_tls())
    };
    assert_eq!(needs(TLS), (true, false));
    assert_eq!(
        needs(&TLS.replace("10.0.0.1:", "127.0.0.1:")),
        (false, false)
    );
    let all = TLS.replace("[volume.v]", "require = true\n[volume.v]");
    assert_eq!(needs(&all), (true, true));
    let open = TLS.replace("nbd_socket =", "insecure = [\"nbd\"]\nnbd_socket =");
    assert_eq!(needs(&open), (false, false));
    assert_eq!(
        findings(&open),
        ["W002 6:7 nbd of node alpha also serves without TLS"]
    );
    assert_eq!(read(&open).config.nodes[0].insecure_words(), ["nbd"]);
    let sealed = open.replace("[volume.v]", "require = true\n[volume.v]");
    assert!(read(&sealed).config.nodes[0].insecure_words().is_empty());
}

#[test]
fn certificates_are_found_below_the_data_dir() {
    let loaded = read(TLS);
    let files = loaded.config.nodes[0].nbd_tls.as_ref().unwrap().files();
    assert_eq!(files.cert, Path::new("/var/lib/pollux/tls/server-cert.pem"));
    assert_eq!(files.key, Path::new("/etc/pollux/tls/server-key.pem"));
    let export = &loaded.config.node_spec(&loaded.config.nodes[0]).volumes[0].nbd[0];
    assert_eq!(export.allow_subjects, ["CN=hyper1", "DNS=hyper2,O=Example"]);
    assert_eq!(export.attach, Attach::Takeover);
    assert!(export.is_default && !export.needs_tls);
    let found = loaded.config.nodes[0].nbd_identity().unwrap_err();
    let (line, _) = found.position(&loaded.source);
    assert_eq!((found.code, line), ("E015", 9));
    assert!(
        found
            .text
            .starts_with("/var/lib/pollux/tls/server-cert.pem cannot be read: "),
        "{}",
        found.text
    );
}

#[test]
fn a_table_of_certificates_is_whole() {
    assert_eq!(
        changed_tls("client_ca = \"tls/ca-cert.pem\"", ""),
        [
            "E004 8:1 `client_ca` is missing in [node.alpha.nbd_tls]",
            "E013 16:18 export v asks for certificates, but node alpha does not",
        ]
    );
    assert_eq!(
        changed_tls("[volume.v]", "clients = \"anyone\"\n[volume.v]"),
        ["E013 11:13 `client_ca` of [node.alpha.nbd_tls] has no effect"]
    );
    assert_eq!(
        changed_tls("cert =", "crt ="),
        ["E002 9:1 unknown key `crt` in [node.alpha.nbd_tls]"]
    );
    assert_eq!(
        changed_tls("CN=hyper1", "cn=hyper1"),
        ["E005 16:19 `allow_subjects` cannot hold \"cn=hyper1\""]
    );
    assert_eq!(
        changed_tls("takeover", "single"),
        ["E005 17:10 `attach` of [volume.v] nbd cannot be \"single\""]
    );
    let two = "default = true\n[[volume.v.nbd]]\nname = \"w\"\ndefault = true";
    assert_eq!(
        changed_tls("default = true", two),
        ["E009 21:11 two exports of one node are its default"]
    );
}
