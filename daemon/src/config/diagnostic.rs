//! What is wrong with a configuration file, where, and what was meant; and how it is shown.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used; the operator should know.
    Warning,
}

/// One finding in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Stable code, for example `E002`.
    pub code: &'static str,
    /// What is wrong.
    pub text: String,
    /// What stands beside the marked bytes.
    pub label: String,
    /// What to do, if the label does not say it.
    pub hint: Option<String>,
    /// Bytes of the file; empty at 0 if the file as a whole is meant.
    pub span: Range<usize>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, span: Range<usize>, text: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code,
            text: text.into(),
            label: String::new(),
            hint: None,
            span,
        }
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, span: Range<usize>, text: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::error(code, span, text)
        }
    }

    /// The same with words beside the marked bytes.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// The same with advice below.
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Line and column of the first byte, both from 1, the column in characters.
    pub fn position(&self, source: &str) -> (usize, usize) {
        let mut at = self.span.start.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        let before = &source[..at];
        let line_at = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_at..].chars().count() + 1,
        )
    }
}

/// One finding as `config check --json` shows it.
#[derive(Serialize)]
pub struct DiagnosticReport {
    severity: Severity,
    code: &'static str,
    file: String,
    line: usize,
    column: usize,
    text: String,
    meant: Option<String>,
    hint: Option<String>,
}

impl DiagnosticReport {
    /// `diagnostic` of the file at `path` with this content.
    pub fn new(diagnostic: &Diagnostic, path: &Path, source: &str) -> DiagnosticReport {
        let (line, column) = diagnostic.position(source);
        DiagnosticReport {
            severity: diagnostic.severity,
            code: diagnostic.code,
            file: path.display().to_string(),
            line,
            column,
            text: diagnostic.text.clone(),
            meant: Some(diagnostic.label.clone()).filter(|label| !label.is_empty()),
            hint: diagnostic.hint.clone(),
        }
    }
}

/// The finding with its lines of the file, for people.
pub fn render(diagnostic: &Diagnostic, path: &Path, source: &str, color: bool) -> String {
    let mut theme = match color {
        true => GraphicalTheme::unicode(),
        false => GraphicalTheme::unicode_nocolor(),
    };
    theme.characters.error = format!("error[{}]:", diagnostic.code);
    theme.characters.warning = format!("warning[{}]:", diagnostic.code);
    let shown = Shown {
        diagnostic,
        source: NamedSource::new(path.display().to_string(), source.to_owned()),
    };
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .with_context_lines(1);
    match handler.render_report(&mut text, &shown) {
        Ok(()) => format!("{}\n", text.trim_start()),
        Err(fmt::Error) => format!("{}: {}\n", diagnostic.code, diagnostic.text),
    }
}

/// A finding and its file, as miette wants them.
struct Shown<'d> {
    diagnostic: &'d Diagnostic,
    source: NamedSource<String>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.diagnostic, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.text)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic
            .hint
            .as_ref()
            .map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Range { start, end } = self.diagnostic.span.clone();
        let label = match self.diagnostic.label.as_str() {
            "" => "here".to_owned(),
            label => label.to_owned(),
        };
        let length = end.saturating_sub(start);
        Some(Box::new(std::iter::once(LabeledSpan::new(
            Some(label),
            start,
            length,
        ))))
    }
}
