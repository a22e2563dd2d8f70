//! What `config check` says, as it says it. `POLLUX_BLESS=1` writes the expected files anew.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

fn check(file: &str, json: bool) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
    command.current_dir(directory()).env_clear();
    command
        .args(["config", "check", "--config", file])
        .args(json.then_some("--json"));
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn assert_says(file: &str, exit: i32, json: bool) {
    let (code, said) = check(file, json);
    assert_eq!(code, exit, "{said}");
    let expected = directory()
        .join(file)
        .with_extension(if json { "json" } else { "txt" });
    if env::var_os("POLLUX_BLESS").is_some() {
        fs::write(&expected, &said).unwrap();
    }
    assert_eq!(
        said,
        fs::read_to_string(&expected).unwrap(),
        "{}",
        expected.display()
    );
}

#[test]
fn all_errors_are_shown_at_once_with_their_lines() {
    assert_says("many-errors.toml", 9, false);
    assert_says("many-errors.toml", 9, true);
}

#[test]
fn syntax_errors_are_shown_with_their_lines() {
    assert_says("syntax.toml", 9, false);
}

#[test]
fn two_nodes_without_quorum_are_warned_of_the_risk() {
    assert_says("quorum-off.toml", 0, false);
}
