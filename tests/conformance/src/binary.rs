//! Where the binary under test lies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the binary, for runs against an installed one.
const NAMED: &str = "POLLUX_BIN";

/// The `pollux` binary. Panics: it is neither named nor there, and cargo cannot build it.
pub fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(named) = std::env::var_os(NAMED) {
            let named = PathBuf::from(named);
            assert!(named.is_file(), "{NAMED}={} is no file", named.display());
            return named;
        }
        match beside_this_program() {
            Some(found) if !is_stale(&found) => found,
            _ => built(),
        }
    })
}

/// `target/<profile>/pollux`, beside `deps/` of a test or beside another binary.
fn beside_this_program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let folder = own.parent()?;
    let folders = [Some(folder), folder.parent()];
    let mut candidates = folders
        .into_iter()
        .flatten()
        .map(|folder| folder.join("pollux"));
    candidates.find(|path| path.is_file())
}

/// A source of this binary changed after it was built, as far as cargo's list of them tells.
/// `cargo test --workspace` builds it for the tests, `cargo test -p conformance` does not.
fn is_stale(binary: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let (Ok(built), Ok(rule)) = (
        changed(binary),
        fs::read_to_string(binary.with_extension("d")),
    ) else {
        return false;
    };
    let sources = rule.split_once(": ").map_or("", |(_, sources)| sources);
    // A blank in a path is escaped; such a path is not found, and not looked at.
    let mut sources = sources.split_whitespace().map(Path::new);
    sources.any(|source| changed(source).is_ok_and(|changed| changed > built))
}

/// Has cargo build the binary anew if anything of it changed, unless one is named. For programs run
/// by hand. Panics: it does not build.
pub fn refresh_binary() {
    if std::env::var_os(NAMED).is_none() {
        built();
    }
}

/// What cargo builds for the running profile. Panics: it does not.
fn built() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "pollux", "--bin", "pollux"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command
        .status()
        .expect("cargo is there, it built this test");
    assert!(status.success(), "cargo could not build the pollux binary");
    beside_this_program().expect("cargo puts the binary beside the folder of this test")
}
