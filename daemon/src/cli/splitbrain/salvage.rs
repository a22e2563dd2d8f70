//! `pollux splitbrain salvage list|extract`: reads files of `data_dir`, no daemon needed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use engine::salvage::{Reader, SalvageError, list};

use super::folder;
use crate::cli::{Place, output, text};
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Blocks of copies that were given up
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux splitbrain salvage list
  pollux splitbrain salvage extract FILE --to beta.img")]
pub(in crate::cli) enum Salvage {
    List(List),
    Extract(Extract),
}

/// List this node's salvage files
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux splitbrain salvage list")]
pub(in crate::cli) struct List {}

/// Write the blocks of a salvage to an image, each at its place
///
/// Checks every byte. The image has the size of the volume; what the salvage does not hold is a hole.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux splitbrain salvage extract vm-store-beta-1763730000.salvage --to beta.img
  pollux splitbrain salvage extract FILE --to copy.img --onto     over a copy of the kept volume")]
pub(in crate::cli) struct Extract {
    /// The salvage: a path, or a name from `salvage list`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The image; it must not exist
    #[arg(long, value_name = "IMAGE")]
    to: PathBuf,
    /// The image exists and is written over where the salvage has blocks
    #[arg(long)]
    onto: bool,
}

impl Salvage {
    pub(super) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            Salvage::List(List {}) => {
                let folder = folder(place)?;
                let found = list(&folder).map_err(|why| explain::no_salvage(&folder, &why))?;
                output::say(&text::salvages(&found));
                Ok(Exit::Done)
            }
            Salvage::Extract(extract) => extract.run(place),
        }
    }
}

impl Extract {
    fn run(self, place: &Place) -> Result<Exit, Failure> {
        let file = match self.file.components().count() {
            1 if !self.file.exists() => folder(place)?.join(&self.file),
            _ => self.file.clone(),
        };
        let mut reader = Reader::open(&file).map_err(|why| explain::no_salvage(&file, &why))?;
        let size = reader.head.size_bytes;
        let image = self.open(size)?;
        let bytes = copy(&mut reader, &image).map_err(|why| explain::no_salvage(&file, &why))?;
        let (blocks, to) = (bytes / 4096, self.to.display());
        output::say(&format!("{blocks} blocks are in {to}, each at its place\n"));
        Ok(Exit::Done)
    }

    fn open(&self, size: u64) -> Result<File, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(!self.onto).mode(0o600);
        let failed = |why| explain::no_image(&self.to, &why);
        let image = options.open(&self.to).map_err(failed)?;
        if !self.onto {
            image.set_len(size).map_err(failed)?;
        }
        Ok(image)
    }
}

/// Every piece to its place; how many bytes that were.
fn copy(reader: &mut Reader, image: &File) -> Result<u64, SalvageError> {
    let mut sum = 0;
    while let Some(piece) = reader.next_piece()? {
        let zeros;
        let bytes = match &piece.bytes {
            Some(bytes) => bytes,
            None => {
                zeros = vec![0; piece.length as usize];
                &zeros
            }
        };
        image.write_all_at(bytes, piece.offset)?;
        sum += piece.length;
    }
    image.sync_all()?;
    Ok(sum)
}

/// Name of a file in its folder.
pub(in crate::cli) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
