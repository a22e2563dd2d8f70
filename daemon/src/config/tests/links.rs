//! `[tls]`, `[node.X.tls]` and `fingerprint`.

use super::*;

const TLS: &str = "[tls]\ncert = \"tls/node.pem\"\nkey = \"/etc/node.key\"\nca = \"tls/ca.pem\"\n";

/// `GOOD` with nodes beyond loopback.
fn far() -> String {
    GOOD.replace("\"127.0.0.1:8790\"", "\"10.0.0.1:8790\"")
        .replace("\"127.0.0.1:8890\"", "\"10.0.0.2:8790\"")
}

fn found_in(text: &str) -> Vec<String> {
    let usual = ["W001", "W004"];
    let found = findings(text).into_iter();
    found
        .filter(|found| !usual.iter().any(|code| found.starts_with(code)))
        .collect()
}

#[test]
fn beyond_loopback_links_need_certificates_or_the_word_insecure() {
    let says = |name| format!("replication of node {name} would listen beyond loopback");
    assert_eq!(
        found_in(&far()),
        [
            format!("E010 7:12 {}", says("alpha")),
            format!("E010 12:12 {}", says("beta")),
        ]
    );
    assert_eq!(found_in(&(far() + TLS)), Vec::<String>::new());
    let open = far().replace("data_dir", "insecure = [\"replication\"]\ndata_dir");
    assert_eq!(found_in(&open).len(), 2, "each is warned of");
    assert_eq!(
        read(&open).config.nodes[0].insecure_words(),
        ["replication"]
    );
    // With certificates the word opens nothing.
    let sealed = read(&(open + TLS));
    assert!(sealed.config.nodes[0].insecure_words().is_empty());
}

#[test]
fn all_nodes_share_a_table_and_one_may_say_something_else() {
    let own = "[node.beta.tls]\nkey = \"own.key\"\n[volume.vm-store]";
    let text = GOOD.replace("[volume.vm-store]", own) + TLS;
    assert_eq!(found_in(&text), Vec::<String>::new());
    let loaded = read(&text);
    let key = |index: usize| {
        let table = loaded.config.nodes[index].link_tls.as_ref().unwrap();
        assert_eq!(
            table.cert.as_ref().unwrap().value,
            Path::new("tls/node.pem")
        );
        table.key.as_ref().unwrap().value.clone()
    };
    assert_eq!(key(0), Path::new("/etc/node.key"));
    assert_eq!(key(1), Path::new("own.key"));
    // The files are looked for below the node's folder, and the error stands at the key.
    let found = loaded
        .config
        .link_identity(&loaded.config.nodes[1])
        .unwrap_err();
    let (line, _) = found.position(&loaded.source);
    assert_eq!(found.code, "E015");
    assert!(
        found
            .text
            .starts_with("/var/lib/pollux/beta/tls/node.pem cannot be read: "),
        "{}",
        found.text
    );
    assert!(
        loaded
            .source
            .lines()
            .nth(line - 1)
            .unwrap()
            .starts_with("cert =")
    );
}

#[test]
fn a_table_for_links_is_whole_and_for_everybody() {
    let without = |key: &str| {
        let lines = TLS.lines().filter(|line| !line.starts_with(key));
        GOOD.to_owned() + &lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    for key in ["cert", "key", "ca"] {
        assert_eq!(
            found_in(&without(key)),
            [format!("E004 27:1 `{key}` is missing in [tls]")]
        );
    }
    let pin = format!("fingerprint = \"sha256:{}\"\ndata_dir", "0a".repeat(32));
    let pinned = without("ca").replace("data_dir", &pin);
    assert_eq!(found_in(&pinned), Vec::<String>::new());
    let unused = GOOD.replacen("data_dir", &pin, 1);
    assert_eq!(
        found_in(&unused),
        ["E013 6:15 `fingerprint` of node alpha has no effect"]
    );
    let wrong = without("?").replacen("data_dir", "fingerprint = \"md5:0a\"\ndata_dir", 1);
    assert_eq!(
        found_in(&wrong),
        ["E005 6:15 `fingerprint` of [node.alpha] is none"]
    );
    let slip = GOOD.to_owned() + &TLS.replace("cert =", "crt =");
    assert_eq!(
        found_in(&slip),
        [
            "E004 27:1 `cert` is missing in [tls]",
            "E002 28:1 unknown key `crt` in [tls]",
        ]
    );
    let one = TLS.replace("[tls]", "[node.alpha.tls]");
    assert_eq!(
        found_in(&(GOOD.to_owned() + &one)),
        ["E013 10:7 node alpha uses TLS for replication, and node beta does not"]
    );
}

#[test]
fn several_addresses_are_several_paths_each_with_its_own_findings() {
    let two = GOOD.replace(
        "\"127.0.0.1:8890\"",
        "[\"127.0.0.1:8890\", \"127.0.1.1:8890\"]",
    );
    assert_eq!(found_in(&two), Vec::<String>::new());
    let loaded = read(&two);
    let spec = loaded.config.node_spec(&loaded.config.nodes[1]);
    assert_eq!(spec.addresses, ["127.0.0.1:8890", "127.0.1.1:8890"]);
    assert_eq!(spec.peers[1], ("beta".to_owned(), spec.addresses.clone()));
    let with = |second: &str| found_in(&two.replace("\"127.0.1.1:8890\"", second));
    assert_eq!(
        with("\"10.0.0.2:8890\""),
        ["E010 12:31 replication of node beta would listen beyond loopback"]
    );
    assert_eq!(
        with("\"127.0.1.1\""),
        ["E005 12:31 `address` of [node.beta] must be host:port"]
    );
    assert_eq!(
        with("8890"),
        ["E003 12:31 `address` of [node.beta] must be an array of strings"]
    );
    assert_eq!(
        with("\"127.0.0.1:8890\""),
        ["E009 12:31 replication and replication of node beta cannot both listen on port 8890"]
    );
    assert_eq!(
        with("\"127.0.0.1:8790\""),
        ["E009 12:31 nodes alpha and beta have the same address"]
    );
    assert_eq!(
        found_in(&GOOD.replace("\"127.0.0.1:8890\"", "[]")),
        [
            "E005 12:12 `address` of [node.beta] names 0 addresses",
            "E004 17:22 volume vm-store is replicated, but node beta has no `address`",
        ]
    );
}
