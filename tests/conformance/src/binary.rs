//! Where the binary under test lies.

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
            Some(found) => found,
            None => built(),
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

/// Has cargo build the binary anew if its sources changed, unless one is named. For programs run
/// by hand; `cargo test --workspace` builds it for the tests by itself. Panics: it does not build.
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
