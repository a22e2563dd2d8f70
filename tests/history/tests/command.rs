//! `history check FILE`, as scripts use it.

use std::path::PathBuf;
use std::process::Command;

fn check(name: &str, text: &str) -> (Option<i32>, String) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the test's own directory");
    let output = Command::new(env!("CARGO_BIN_EXE_history"))
        .arg("check")
        .arg(&path)
        .output()
        .expect("the binary was built with this test");
    let both = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&both).into_owned(),
    )
}

#[test]
fn a_clean_history_exits_0_and_says_how_much_was_judged() {
    let (code, said) = check(
        "clean",
        "1 invoke 1 1 write 0 5-8\n2 ok 1\n3 invoke 2 1 read 2 2\n4 ok 2 7,8\n",
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("2 requests, 4 blocks touched, 2 block values read"),
        "{said}"
    );
}

#[test]
fn a_broken_law_exits_1_and_is_told() {
    let text = "# lines of two clients\n10 invoke 1 1 write 0 5 fua\n20 ok 1\n40 invoke 2 2 read 0 1\n50 ok 2 0\n30 crash lost\n";
    let (code, said) = check("broken", text);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("law B5, block 0:"), "{said}");
    assert!(said.contains("tag 5 had to survive"), "{said}");
}

#[test]
fn what_is_no_history_exits_2_with_the_place() {
    let (code, said) = check("syntax", "1 open 1\n2 wave\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 2"), "{said}");
    let (code, said) = check("order", "1 ok 5\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("request 5 is not open"), "{said}");
    let (code, said) = check("tags", "1 invoke 1 1 write 0 5\n2 invoke 2 1 write 0 5\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("tag 5 was already written to block 0"),
        "{said}"
    );
}
