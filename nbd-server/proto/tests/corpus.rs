//! The fuzz targets on the corpus that is checked in and on mutations of it, without nightly.
//!
//! `NBD_PROTO_WRITE_CORPUS=1 cargo test -p nbd-proto --test corpus` writes the seeds anew.

use std::fs;
use std::path::{Path, PathBuf};

use nbd_proto::fuzzing::{SplitMix, TARGETS, seeds};

/// Mutations of each target's corpus.
const MUTATIONS: usize = 10_000;

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// The inputs of a target by file name, sorted so that every run draws the same mutations.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = fs::read_dir(directory(target))
        .unwrap_or_else(|error| panic!("corpus of {target}: {error}"))
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn the_corpus_holds_every_seed() {
    for (target, name, bytes) in seeds() {
        let path = directory(target).join(name);
        if std::env::var_os("NBD_PROTO_WRITE_CORPUS").is_some() {
            fs::create_dir_all(directory(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            found == bytes,
            "{} differs from its seed: write the corpus anew",
            path.display()
        );
    }
}

#[test]
fn every_target_holds_on_its_corpus_and_on_mutations_of_it() {
    for (target, body) in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for (_, bytes) in &inputs {
            body(bytes);
            (0..bytes.len()).for_each(|cut| body(&bytes[..cut]));
        }
        let mut numbers = SplitMix(0x706f_6c6c_7578);
        for _ in 0..MUTATIONS {
            let (_, bytes) = &inputs[numbers.below(inputs.len())];
            body(&numbers.mutate(bytes));
        }
    }
}
