//! Changes of the file's text: an export more, less, or under another name; a larger volume.
//! Everything else in it, comments too, stays as it was written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::units::exact_size;
use crate::api::body::ask::ExportAdd;

/// Why a text cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no TOML.
    #[error("it is not well-formed TOML: {0}")]
    Syntax(String),
    /// The volume is not declared.
    #[error("it declares no volume {0}")]
    NoVolume(String),
    /// The volume has no such export.
    #[error("volume {volume} has no export {export} in it")]
    NoExport {
        /// Which volume.
        volume: String,
        /// Which export.
        export: String,
    },
    /// `nbd` of the volume is something else than exports.
    #[error("`nbd` of volume {0} is no array of exports")]
    Shape(String),
}

/// `source` with one more export of `volume`, behind those it has. What is not asked for is not
/// written.
pub fn add(source: &str, volume: &str, export: &ExportAdd) -> Result<String, EditError> {
    change(source, volume, |table| {
        match table.get_mut("nbd") {
            Some(Item::Value(Value::Array(array))) => array.push(inline(export)),
            Some(Item::ArrayOfTables(tables)) => tables.push(block(export)),
            Some(_) => return Err(EditError::Shape(volume.to_owned())),
            None => {
                let mut tables = ArrayOfTables::new();
                tables.push(block(export));
                table.insert("nbd", Item::ArrayOfTables(tables));
            }
        }
        Ok(())
    })
}

/// `source` without an export of `volume`.
pub fn remove(source: &str, volume: &str, export: &str) -> Result<String, EditError> {
    change(source, volume, |table| {
        let none = || EditError::NoExport {
            volume: volume.to_owned(),
            export: export.to_owned(),
        };
        match table.get_mut("nbd") {
            Some(Item::Value(Value::Array(array))) => {
                let is_it = |value: &Value| {
                    let table = value.as_inline_table();
                    table.is_some_and(|table| name_of(table, volume) == export)
                };
                let index = array.iter().position(is_it);
                array.remove(index.ok_or_else(none)?);
            }
            Some(Item::ArrayOfTables(tables)) => {
                let found = tables
                    .iter()
                    .position(|table| name_of(table, volume) == export);
                tables.remove(found.ok_or_else(none)?);
            }
            _ => return Err(none()),
        }
        Ok(())
    })
}

/// `source` with another name for an export of `volume`.
pub fn rename(source: &str, volume: &str, old: &str, new: &str) -> Result<String, EditError> {
    change(source, volume, |table| {
        let none = || EditError::NoExport {
            volume: volume.to_owned(),
            export: old.to_owned(),
        };
        let found: &mut dyn TableLike = match table.get_mut("nbd") {
            Some(Item::Value(Value::Array(array))) => array
                .iter_mut()
                .filter_map(Value::as_inline_table_mut)
                .find(|table| name_of(*table, volume) == old)
                .ok_or_else(none)?,
            Some(Item::ArrayOfTables(tables)) => tables
                .iter_mut()
                .find(|table| name_of(*table, volume) == old)
                .ok_or_else(none)?,
            _ => return Err(none()),
        };
        set(found, "name", new);
        Ok(())
    })
}

/// `source` with another size of `volume`.
pub fn resize(source: &str, volume: &str, size_bytes: u64) -> Result<String, EditError> {
    change(source, volume, |table| {
        set(table, "size", &exact_size(size_bytes));
        Ok(())
    })
}

fn change(
    source: &str,
    volume: &str,
    edit: impl FnOnce(&mut dyn TableLike) -> Result<(), EditError>,
) -> Result<String, EditError> {
    let mut document: DocumentMut = source
        .parse()
        .map_err(|wrong: toml_edit::TomlError| EditError::Syntax(wrong.message().to_owned()))?;
    let table = document
        .get_mut("volume")
        .and_then(Item::as_table_like_mut)
        .and_then(|volumes| volumes.get_mut(volume))
        .and_then(Item::as_table_like_mut)
        .ok_or_else(|| EditError::NoVolume(volume.to_owned()))?;
    edit(table)?;
    Ok(document.to_string())
}

/// Sets a key where it stands, with the space and the comment around its value.
fn set(table: &mut dyn TableLike, key: &str, text: &str) {
    match table.get_mut(key) {
        Some(Item::Value(value)) => {
            let decor = value.decor().clone();
            *value = Value::from(text);
            *value.decor_mut() = decor;
        }
        _ => {
            table.insert(key, toml_edit::value(text));
        }
    }
}

/// An export without a name has its volume's.
fn name_of<'t>(table: &'t dyn TableLike, volume: &'t str) -> &'t str {
    table.get("name").and_then(Item::as_str).unwrap_or(volume)
}

fn values(export: &ExportAdd) -> Vec<(&'static str, Value)> {
    let list = |texts: &[String]| Value::Array(texts.iter().collect::<Array>());
    let mut values = vec![("name", Value::from(&export.name))];
    if export.read_only {
        values.push(("read_only", true.into()));
    }
    if !export.description.is_empty() {
        values.push(("description", Value::from(&export.description)));
    }
    if !export.allow.is_empty() {
        values.push(("allow", list(&export.allow)));
    }
    if !export.allow_subjects.is_empty() {
        values.push(("allow_subjects", list(&export.allow_subjects)));
    }
    if let Some(attach) = &export.attach {
        values.push(("attach", Value::from(attach)));
    }
    values
}

fn inline(export: &ExportAdd) -> InlineTable {
    values(export).into_iter().collect()
}

fn block(export: &ExportAdd) -> Table {
    values(export).into_iter().collect()
}

/// Replaces the file at `path`, or the one that a link there leads to, as a whole: whoever reads
/// it meanwhile reads the old text or the new. Owner and permissions stay.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let before = fs::metadata(&path)?;
    let folder = path
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let written = write_beside(&beside, text, &before).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        // What could not be put in place is of no use.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(&folder)?.sync_all()
}

fn write_beside(path: &Path, text: &str, like: &fs::Metadata) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
[cluster]
name = \"lab\"   # ours
# the disks
[volume.a]
size = \"1MiB\"
backing = \"a.img\"
nbd = [{ name = \"one\" }] # short
[volume.b]
size = \"1MiB\"
backing = \"b.img\"

# for backups
[[volume.b.nbd]]
read_only = true # only

[volume.c]
size = \"1MiB\"
backing = \"c.img\"
";

    fn export(name: &str) -> ExportAdd {
        ExportAdd {
            name: name.to_owned(),
            ..ExportAdd::default()
        }
    }

    #[test]
    fn an_export_is_added_in_the_style_of_its_neighbours() {
        let added = add(FILE, "a", &export("two")).unwrap();
        let expected = FILE.replace(
            "[{ name = \"one\" }]",
            "[{ name = \"one\" }, { name = \"two\" }]",
        );
        assert_eq!(added, expected);
        let new = ExportAdd {
            read_only: true,
            description: "a copy".to_owned(),
            allow: vec!["10.0.0.0/8".to_owned()],
            allow_subjects: vec!["CN=h".to_owned()],
            attach: Some("exclusive".to_owned()),
            ..export("b2")
        };
        let added = add(FILE, "b", &new).unwrap();
        let block = "read_only = true # only\n\n[[volume.b.nbd]]\nname = \"b2\"\n\
                     read_only = true\ndescription = \"a copy\"\nallow = [\"10.0.0.0/8\"]\n\
                     allow_subjects = [\"CN=h\"]\nattach = \"exclusive\"\n";
        assert_eq!(added, FILE.replace("read_only = true # only\n", block));
        let added = add(FILE, "c", &export("c")).unwrap();
        assert_eq!(added, format!("{FILE}\n[[volume.c.nbd]]\nname = \"c\"\n"));
    }

    #[test]
    fn an_export_is_removed_with_its_table_alone() {
        let removed = remove(FILE, "a", "one").unwrap();
        assert_eq!(removed, FILE.replace("[{ name = \"one\" }]", "[]"));
        // Without a name it has its volume's.
        let removed = remove(FILE, "b", "b").unwrap();
        let gone = "\n# for backups\n[[volume.b.nbd]]\nread_only = true # only\n";
        assert_eq!(removed, FILE.replace(gone, ""));
    }

    #[test]
    fn an_export_is_renamed_where_it_stands() {
        let renamed = rename(FILE, "a", "one", "1").unwrap();
        assert_eq!(renamed, FILE.replace("\"one\"", "\"1\""));
        let renamed = rename(FILE, "b", "b", "disk").unwrap();
        let named = "read_only = true # only\nname = \"disk\"\n";
        assert_eq!(renamed, FILE.replace("read_only = true # only\n", named));
    }

    #[test]
    fn a_size_is_changed_where_it_stands() {
        let text = "[volume.a]\nbacking = \"x\"\nsize  =  \"1MiB\" # for now\n";
        let grown = resize(text, "a", 3 << 20).unwrap();
        assert_eq!(grown, text.replace("1MiB", "3MiB"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let text = |result: Result<String, EditError>| result.unwrap_err().to_string();
        assert_eq!(
            text(remove(FILE, "a", "two")),
            "volume a has no export two in it"
        );
        assert_eq!(
            text(rename(FILE, "c", "c", "d")),
            "volume c has no export c in it"
        );
        assert_eq!(
            text(add(FILE, "d", &export("d"))),
            "it declares no volume d"
        );
        assert!(matches!(
            add("[", "d", &export("d")),
            Err(EditError::Syntax(_))
        ));
    }

    #[test]
    fn a_file_is_replaced_with_its_permissions_also_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real.toml"), dir.path().join("link.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
