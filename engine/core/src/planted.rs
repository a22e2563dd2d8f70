//! Faults planted on purpose, to prove that the simulator would find them.
//!
//! Compiled only with the feature `planted`; without it every question is the constant `false`.

/// One planted fault. The name says what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // each name is its own sentence
pub enum Bug {
    AckBeforePeer,
    NoNewTermOnShrink,
    AckBeforeRecordDurable,
    ClearDirtyOnSend,
    NoMarkOnLinkLoss,
    SkipLogRecovery,
    TargetNotInconsistent,
    FlushOnlyLocal,
    LogClosesEarly,
    WriteBeforeLogDurable,
    TrimNotMirrored,
    IgnoreBadChecksum,
    LateAckCounts,
    OverlapIgnored,
    BlankNotAllDirty,
    JoinBeforeDurable,
    PromoteAnyone,
    ReadDoesNotWait,
    FailedFlushForgotten,
    ClosedSessionDispatches,
    OneSuperblockSlot,
    LogClosesPastMarks,
    MarkMissesMemberWrites,
    MarksNotTold,
    PeerReadPassesWrites,
    ReadsFromWhoLeft,
    ComparedIsCleared,
    LateIsLetInAtOnce,
    GivesUpBeforeSaved,
    GivesUpItsMarks,
    GrowthNotAgreed,
    NewPagesWrittenOnce,
    VerifyTrustsInnerNodes,
    PromiseNotDurable,
    VotesForLowerTerms,
    ChosenByHalf,
    LeaseNotAwaited,
    OldPrimaryKeepsSessions,
    AnyCopyIsElected,
    NotWholeIsElected,
    MembersForgetThirdNodes,
    UnconfirmedMarkedForOneOnly,
    TargetTrustsThirdNodes,
    LostTargetStaysInS,
    ServesOnWhenSuperseded,
    HandsOverUndrained,
    GivenUpIsDecided,
    ServesOverHungMetadata,
    UnknownTakenAsChosen,
    LeaseCountsFromTheAnswer,
    ClaimsUnderALease,
    ConflictSwappedBlindly,
}

impl Bug {
    /// It can only go wrong where a majority chooses.
    pub fn needs_votes(self) -> bool {
        self as usize >= Bug::PromiseNotDurable as usize
    }

    /// It can only go wrong where a register chooses.
    pub fn needs_register(self) -> bool {
        self as usize >= Bug::UnknownTakenAsChosen as usize
    }

    /// All of them.
    pub const ALL: [Bug; 52] = [
        Bug::AckBeforePeer,
        Bug::NoNewTermOnShrink,
        Bug::AckBeforeRecordDurable,
        Bug::ClearDirtyOnSend,
        Bug::NoMarkOnLinkLoss,
        Bug::SkipLogRecovery,
        Bug::TargetNotInconsistent,
        Bug::FlushOnlyLocal,
        Bug::LogClosesEarly,
        Bug::WriteBeforeLogDurable,
        Bug::TrimNotMirrored,
        Bug::IgnoreBadChecksum,
        Bug::LateAckCounts,
        Bug::OverlapIgnored,
        Bug::BlankNotAllDirty,
        Bug::JoinBeforeDurable,
        Bug::PromoteAnyone,
        Bug::ReadDoesNotWait,
        Bug::FailedFlushForgotten,
        Bug::ClosedSessionDispatches,
        Bug::OneSuperblockSlot,
        Bug::LogClosesPastMarks,
        Bug::MarkMissesMemberWrites,
        Bug::MarksNotTold,
        Bug::PeerReadPassesWrites,
        Bug::ReadsFromWhoLeft,
        Bug::ComparedIsCleared,
        Bug::LateIsLetInAtOnce,
        Bug::GivesUpBeforeSaved,
        Bug::GivesUpItsMarks,
        Bug::GrowthNotAgreed,
        Bug::NewPagesWrittenOnce,
        Bug::VerifyTrustsInnerNodes,
        Bug::PromiseNotDurable,
        Bug::VotesForLowerTerms,
        Bug::ChosenByHalf,
        Bug::LeaseNotAwaited,
        Bug::OldPrimaryKeepsSessions,
        Bug::AnyCopyIsElected,
        Bug::NotWholeIsElected,
        Bug::MembersForgetThirdNodes,
        Bug::UnconfirmedMarkedForOneOnly,
        Bug::TargetTrustsThirdNodes,
        Bug::LostTargetStaysInS,
        Bug::ServesOnWhenSuperseded,
        Bug::HandsOverUndrained,
        Bug::GivenUpIsDecided,
        Bug::ServesOverHungMetadata,
        Bug::UnknownTakenAsChosen,
        Bug::LeaseCountsFromTheAnswer,
        Bug::ClaimsUnderALease,
        Bug::ConflictSwappedBlindly,
    ];
}
