//! What a process of `pollux` tells the one that started it. Shape: `docs/operations.md`.

use std::process::ExitCode;

/// Exit codes of every verb; the numbers are promised to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or healthy.
    Done,
    /// Failed; the text says why.
    Failed,
    /// A flag or value is wrong.
    Usage,
    /// No such volume, node or peer.
    NotFound,
    /// Refused because data could be lost; `--force` exists.
    WouldLoseData,
    /// `status --check` found a volume degraded, or `verify` found differences.
    Degraded,
    /// `status --check` found a volume that cannot serve I/O.
    Critical,
    /// Took longer than asked.
    TimedOut,
    /// The daemon does not answer, or does not let this user in.
    Unreachable,
    /// The configuration is invalid.
    Config,
    /// Some of several objects failed.
    Partial,
}

impl Exit {
    /// Every exit, in the order of its number.
    pub const ALL: [Exit; 11] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::WouldLoseData,
        Exit::Degraded,
        Exit::Critical,
        Exit::TimedOut,
        Exit::Unreachable,
        Exit::Config,
        Exit::Partial,
    ];

    /// The number the shell sees.
    pub fn number(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::WouldLoseData => 4,
            Exit::Degraded => 5,
            Exit::Critical => 6,
            Exit::TimedOut => 7,
            Exit::Unreachable => 8,
            Exit::Config => 9,
            Exit::Partial => 10,
        }
    }

    /// The exit with this number, as the API carries it; unknown numbers count as failed.
    pub fn from_number(number: u8) -> Exit {
        Exit::ALL
            .into_iter()
            .find(|exit| exit.number() == number)
            .unwrap_or(Exit::Failed)
    }

    /// The word for it in the API.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::NotFound => "not_found",
            Exit::WouldLoseData => "would_lose_data",
            Exit::Degraded => "degraded",
            Exit::Critical => "critical",
            Exit::TimedOut => "timed_out",
            Exit::Unreachable => "unreachable",
            Exit::Config => "config",
            Exit::Partial => "partial",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn exit_numbers_are_promised() {
        let numbers: Vec<u8> = Exit::ALL.iter().map(|exit| exit.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        for exit in Exit::ALL {
            assert_eq!(Exit::from_number(exit.number()), exit);
        }
        assert_eq!(Exit::from_number(77), Exit::Failed);
    }
}
