//! One table of the file: typed look-ups that leave findings, and the keys nobody asked for.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{At, Diagnostic, nearest, units};

/// Findings, in the order they were made.
pub(super) type Findings = Vec<Diagnostic>;

/// A table, its name for people, and which keys were asked for.
pub(super) struct Section<'s> {
    table: &'s DeTable<'s>,
    /// Where the table begins.
    pub(super) span: Range<usize>,
    /// `[node.alpha]`.
    pub(super) title: String,
    known: Vec<&'static str>,
}

impl<'s> Section<'s> {
    /// The table whose header or braces are at `span`.
    pub(super) fn new(table: &'s DeTable<'s>, span: Range<usize>, title: String) -> Section<'s> {
        Section {
            table,
            span,
            title,
            known: Vec::new(),
        }
    }

    /// The value of `key`, if it stands there.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'s Spanned<DeValue<'s>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let mut entries = self.table.iter();
        entries
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }

    /// A string.
    pub(super) fn text(&mut self, key: &'static str, out: &mut Findings) -> Option<At<&'s str>> {
        let value = self.value(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At::new(text, value.span())),
            None => self.wrong_type(key, value, "a string", out),
        }
    }

    /// The string of a key that the file chose, as the name of a node.
    pub(super) fn text_of(&mut self, key: &str, out: &mut Findings) -> Option<At<&'s str>> {
        let mut entries = self.table.iter();
        let (_, value) = entries.find(|(name, _)| name.get_ref() == key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At::new(text, value.span())),
            None => self.wrong_type(key, value, "a string", out),
        }
    }

    /// A string that must stand there.
    pub(super) fn needed(&mut self, key: &'static str, out: &mut Findings) -> Option<At<&'s str>> {
        if self.value(key).is_none() {
            self.missing(key, out);
        }
        self.text(key, out)
    }

    /// Says that `key` must stand in this table, unless a slip of it does, which has its own
    /// finding.
    pub(super) fn missing(&self, key: &str, out: &mut Findings) {
        if self
            .table
            .iter()
            .any(|(name, _)| nearest(name.get_ref(), [key]).is_some())
        {
            return;
        }
        let text = format!("`{key}` is missing in {}", self.title);
        out.push(Diagnostic::error("E004", self.span.clone(), text).label("in this table"));
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, out: &mut Findings) -> Option<bool> {
        let value = self.value(key)?;
        value
            .get_ref()
            .as_bool()
            .or_else(|| self.wrong_type(key, value, "`true` or `false`", out))
    }

    /// A whole number within `range`.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u32>,
        out: &mut Findings,
    ) -> Option<At<u32>> {
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            return self.wrong_type(key, value, "a whole number", out);
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(At::new(number, value.span())),
            _ => {
                let (low, high) = range.into_inner();
                let text = format!("`{key}` of {} is out of range", self.title);
                let label = format!("must be from {low} to {high}");
                out.push(Diagnostic::error("E005", value.span(), text).label(label));
                None
            }
        }
    }

    /// A string that is a duration.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        out: &mut Findings,
    ) -> At<Duration> {
        let Some(text) = self.text(key, out) else {
            return At::new(default, 0..0);
        };
        match units::duration(text.value) {
            Ok(time) => At::new(time, text.span),
            Err(wrong) => {
                out.push(self.wrong_unit(key, &text, &wrong));
                At::new(default, 0..0)
            }
        }
    }

    /// A string that is a size in bytes.
    pub(super) fn size(&mut self, key: &'static str, out: &mut Findings) -> Option<At<u64>> {
        let text = self.needed(key, out)?;
        match units::size(text.value) {
            Ok(size) => Some(At::new(size, text.span)),
            Err(wrong) => {
                out.push(self.wrong_unit(key, &text, &wrong));
                None
            }
        }
    }

    /// One word of `words`; those of `refused` are known, and refused with their reason.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        refused: &[(&str, &str)],
        out: &mut Findings,
    ) -> Option<At<T>> {
        let text = self.text(key, out)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(At::new(*value, text.span));
        }
        if let Some((word, why)) = refused.iter().find(|(word, _)| *word == text.value) {
            let says = format!("this version does not implement {key} = \"{word}\"");
            let label = format!("use {}", list(words.iter().map(|(word, _)| *word)));
            out.push(
                Diagnostic::error("E008", text.span, says)
                    .label(label)
                    .hint(*why),
            );
            return None;
        }
        let says = format!("`{key}` of {} cannot be \"{}\"", self.title, text.value);
        let label = match nearest(text.value, words.iter().map(|(word, _)| *word)) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("must be {}", list(words.iter().map(|(word, _)| *word))),
        };
        out.push(Diagnostic::error("E005", text.span, says).label(label));
        None
    }

    /// An array of strings.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        out: &mut Findings,
    ) -> Option<At<Vec<At<&'s str>>>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            return self.wrong_type(key, value, "an array of strings, as in [\"a\", \"b\"]", out);
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At::new(text, item.span())),
                None => drop(self.wrong_type::<()>(key, item, "an array of strings", out)),
            }
        }
        Some(At::new(texts, value.span()))
    }

    /// A table below this one.
    pub(super) fn section(&mut self, key: &'static str, out: &mut Findings) -> Option<Section<'s>> {
        let value = self.value(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(table, value.span(), format!("[{key}]"))),
            None => self.wrong_type(key, value, "a table", out),
        }
    }

    /// The named tables below this one, `[key.NAME]`, in the file's order.
    pub(super) fn named(
        &mut self,
        key: &'static str,
        out: &mut Findings,
    ) -> Vec<(At<String>, Section<'s>)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Some(table) = value.get_ref().as_table() else {
            let wanted = format!("tables with names, as in [{key}.alpha]");
            return self
                .wrong_type(key, value, &wanted, out)
                .unwrap_or_default();
        };
        let mut sections = Vec::new();
        for (name, value) in table {
            let title = format!("[{key}.{}]", name.get_ref());
            match value.get_ref().as_table() {
                Some(inner) => {
                    let name = At::new(name.get_ref().to_string(), name.span());
                    // A header spans its brackets; the name alone points as well at inline tables.
                    let section = Section::new(inner, name.span.clone(), title);
                    sections.push((name, section));
                }
                None => {
                    let text = format!("{title} must be a table");
                    let label = format!("this is {}", article(value.get_ref()));
                    out.push(Diagnostic::error("E003", value.span(), text).label(label));
                }
            }
        }
        sections.sort_by_key(|(name, _)| name.span.start);
        sections
    }

    /// The tables of the array `key`.
    pub(super) fn array(&mut self, key: &'static str, out: &mut Findings) -> Vec<Section<'s>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let wanted = "an array of tables, as in [{ name = \"vm-store\" }]";
        let Some(array) = value.get_ref().as_array() else {
            return self.wrong_type(key, value, wanted, out).unwrap_or_default();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let title = format!("{} {key}", self.title);
                    sections.push(Section::new(table, item.span(), title));
                }
                None => drop(self.wrong_type::<()>(key, item, wanted, out)),
            }
        }
        sections
    }

    /// Reports the keys nobody asked for; those of `planned`, which a later version will know,
    /// with that reason.
    pub(super) fn finish(self, planned: &[&str], out: &mut Findings) {
        for (name, _) in self.table {
            let key: &str = name.get_ref();
            if self.known.contains(&key) {
                continue;
            }
            if planned.contains(&key) {
                let text = format!("this version does not implement `{key}` in {}", self.title);
                out.push(Diagnostic::error("E008", name.span(), text).label("remove it"));
                continue;
            }
            let text = format!("unknown key `{key}` in {}", self.title);
            let found = Diagnostic::error("E002", name.span(), text);
            out.push(match nearest(key, self.known.iter().copied()) {
                Some(known) => found.label(format!("did you mean `{known}`?")),
                None => found.label(format!("known here: {}", self.known.join(", "))),
            });
        }
    }

    fn wrong_type<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        out: &mut Findings,
    ) -> Option<T> {
        let text = format!("`{key}` of {} must be {wanted}", self.title);
        let label = format!("this is {}", article(value.get_ref()));
        out.push(Diagnostic::error("E003", value.span(), text).label(label));
        None
    }

    pub(super) fn wrong_unit(
        &self,
        key: &str,
        text: &At<&str>,
        wrong: &units::UnitError,
    ) -> Diagnostic {
        // Escapes make a literal longer than its text; only a plain one can be marked inside.
        let plain = text.span.len() == text.value.len() + 2;
        let inside = text.span.start + 1 + wrong.span.start..text.span.start + 1 + wrong.span.end;
        let span = if plain && !inside.is_empty() {
            inside
        } else {
            text.span.clone()
        };
        let says = format!("`{key}` of {}: {}", self.title, wrong.text);
        let found = Diagnostic::error("E005", span, says);
        match &wrong.hint {
            Some(hint) => found.label(hint.clone()),
            None => found,
        }
    }
}

fn article(value: &DeValue<'_>) -> String {
    match value.type_str() {
        word @ ("array" | "integer") => format!("an {word}"),
        word => format!("a {word}"),
    }
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
pub(super) fn list<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}
