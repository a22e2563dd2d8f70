//! One line per state change, handed to whoever writes logs. Reactors never block on it.

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something changed as it should.
    Info,
    /// Service goes on, with less safety or speed.
    Warn,
    /// Something broke.
    Error,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// How much it matters.
    pub level: Level,
    /// Stable code, `W104` for example; empty where none applies.
    pub code: &'static str,
    /// Volume it is about.
    pub volume: Option<&'a str>,
    /// The sentence.
    pub text: &'a str,
}

/// Takes the lines of all reactors. Called from their threads: must not wait for disks, sockets
/// or locks that others hold for long.
pub trait Log: Send + Sync {
    /// One line.
    fn line(&self, line: Line<'_>);
}

/// Says nothing; for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Log for Silent {
    fn line(&self, _line: Line<'_>) {}
}
