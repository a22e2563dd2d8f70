//! Reading a salvage, by tools: every byte is checked before it is used.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::format::{DATA, END, HEAD, Head, PIECE_MAX, RECORD, Record, ZEROS};
use crate::sums;

/// Why a file is no salvage that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It begins with something else.
    #[error("it is no salvage of a version this program knows, or its head is damaged")]
    Head,
    /// A record does not fit.
    #[error("it is damaged {at} bytes from its start")]
    Damaged {
        /// Where.
        at: u64,
    },
}

/// A part of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it lay, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What it held; `None`: zeros.
    pub bytes: Option<Vec<u8>>,
}

/// Reads a salvage from its start.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    /// Whose copy it was.
    pub head: Head,
    at: u64,
    records: u64,
    length: u64,
    /// Where the last piece ended.
    end: u64,
}

impl Reader {
    /// Opens one and checks its head.
    pub fn open(path: &Path) -> Result<Reader, SalvageError> {
        let mut file = BufReader::new(File::open(path)?);
        let mut head = [0; HEAD];
        read_all(&mut file, &mut head, 0)?;
        let head = Head::decode(head).ok_or(SalvageError::Head)?;
        Ok(Reader {
            file,
            head,
            at: HEAD as u64,
            records: 0,
            length: 0,
            end: 0,
        })
    }

    /// The next piece, lowest first; `None` after the last one, once the end was found whole.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, SalvageError> {
        let at = self.at;
        let damaged = SalvageError::Damaged { at };
        let mut record = [0; RECORD];
        read_all(&mut self.file, &mut record, at)?;
        self.at += RECORD as u64;
        let Some(record) = Record::decode(record) else {
            return Err(damaged);
        };
        let Record {
            kind,
            offset,
            length,
            checksum,
        } = record;
        if kind == END {
            let is_whole = (offset, length) == (self.records, self.length);
            return if is_whole { Ok(None) } else { Err(damaged) };
        }
        let is_known = kind == DATA || kind == ZEROS;
        let end = offset.checked_add(length);
        let fits = end.is_some_and(|end| end <= self.head.size_bytes) && offset >= self.end;
        if !is_known || !fits || length == 0 || length > PIECE_MAX {
            return Err(damaged);
        }
        let bytes = match kind {
            DATA => {
                let mut bytes = vec![0; length as usize];
                read_all(&mut self.file, &mut bytes, at)?;
                self.at += length;
                if sums::bytes(&bytes) != checksum {
                    return Err(damaged);
                }
                Some(bytes)
            }
            _ => None,
        };
        self.records += 1;
        self.length += length;
        self.end = offset + length;
        Ok(Some(Piece {
            offset,
            length,
            bytes,
        }))
    }
}

/// An end in the middle is damage.
fn read_all(file: &mut impl Read, bytes: &mut [u8], at: u64) -> Result<(), SalvageError> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SalvageError::Damaged { at },
        _ => SalvageError::Read(error),
    })
}

/// A salvage in a folder.
#[derive(Debug)]
pub struct Found {
    /// Where it lies.
    pub path: PathBuf,
    /// Whose copy it was, or why it cannot be read.
    pub head: Result<Head, SalvageError>,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// The salvages of a folder, by name; one that is not there holds none.
pub fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "salvage") {
            let file_bytes = fs::metadata(&path)?.len();
            let head = Reader::open(&path).map(|reader| reader.head);
            found.push(Found {
                path,
                head,
                file_bytes,
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
