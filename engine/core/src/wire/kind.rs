//! Numbers of message types. A number is never used again for something else.

/// Type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// `Message::Hello`
    Hello = 1,
    /// `Message::Refuse`
    Refuse = 2,
    /// `Message::Runs`
    Runs = 3,
    /// `Message::State`
    State = 4,
    /// `Message::Record`
    Record = 5,
    /// `Message::RecordAck`
    RecordAck = 6,
    /// `Message::Adopt`
    Adopt = 7,
    /// `Message::AdoptAck`
    AdoptAck = 8,
    /// `Message::Data`
    Data = 16,
    /// `Message::Zero`
    Zero = 17,
    /// `Message::Ack`
    Ack = 18,
    /// `Message::Flush`
    Flush = 19,
    /// `Message::FlushAck`
    FlushAck = 20,
    /// `Message::Progress`
    Progress = 21,
    /// `Message::SetAttr`
    SetAttr = 22,
    /// `Message::SetAttrAck`
    SetAttrAck = 23,
    /// `Message::MarkPage`
    MarkPage = 24,
    /// `Message::ResyncOffer`
    ResyncOffer = 32,
    /// `Message::MapRequest`
    MapRequest = 33,
    /// `Message::Map`
    Map = 34,
    /// `Message::ResyncRequest`
    ResyncRequest = 35,
    /// `Message::ResyncData`
    ResyncData = 36,
    /// `Message::ResyncZero`
    ResyncZero = 37,
    /// `Message::ResyncEqual`
    ResyncEqual = 38,
    /// `Message::ResyncFailed`
    ResyncFailed = 39,
    /// `Message::ResyncAck`
    ResyncAck = 40,
    /// `Message::ResyncPause`
    ResyncPause = 41,
    /// `Message::ResyncAsk`
    ResyncAsk = 42,
    /// `Message::ResyncDiffer`
    ResyncDiffer = 43,
    /// `Message::HashRequest`
    HashRequest = 44,
    /// `Message::HashReply`
    HashReply = 45,
    /// `Message::ReadRequest`
    ReadRequest = 48,
    /// `Message::ReadReply`
    ReadReply = 49,
    /// `Message::SumRequest`
    SumRequest = 50,
    /// `Message::SumReply`
    SumReply = 51,
    /// `Message::Parted`
    Parted = 53,
    /// `Message::GrowAsk`
    GrowAsk = 56,
    /// `Message::GrowAnswer`
    GrowAnswer = 57,
    /// First frame of a control connection.
    ControlHello = 256,
    /// Are you there?
    Ping = 257,
    /// Yes.
    Pong = 258,
    /// `Ballot`
    Vote = 272,
    /// `Ballot` with a table of nodes
    Table = 274,
}

impl Kind {
    /// Every type, by number.
    pub const ALL: [Kind; 43] = [
        Kind::Hello,
        Kind::Refuse,
        Kind::Runs,
        Kind::State,
        Kind::Record,
        Kind::RecordAck,
        Kind::Adopt,
        Kind::AdoptAck,
        Kind::Data,
        Kind::Zero,
        Kind::Ack,
        Kind::Flush,
        Kind::FlushAck,
        Kind::Progress,
        Kind::SetAttr,
        Kind::SetAttrAck,
        Kind::MarkPage,
        Kind::ResyncOffer,
        Kind::MapRequest,
        Kind::Map,
        Kind::ResyncRequest,
        Kind::ResyncData,
        Kind::ResyncZero,
        Kind::ResyncEqual,
        Kind::ResyncFailed,
        Kind::ResyncAck,
        Kind::ResyncPause,
        Kind::ResyncAsk,
        Kind::ResyncDiffer,
        Kind::HashRequest,
        Kind::HashReply,
        Kind::ReadRequest,
        Kind::ReadReply,
        Kind::SumRequest,
        Kind::SumReply,
        Kind::Parted,
        Kind::GrowAsk,
        Kind::GrowAnswer,
        Kind::ControlHello,
        Kind::Ping,
        Kind::Pong,
        Kind::Vote,
        Kind::Table,
    ];

    /// The type with this number, if this build knows it.
    pub fn from_number(number: u16) -> Option<Kind> {
        BY_NUMBER.get(usize::from(number)).copied().flatten()
    }

    /// A receiver that does not know it must close. Only marks of progress may be missed, and tables
    /// of nodes, which are said again.
    pub fn is_vital(self) -> bool {
        !matches!(self, Kind::Progress | Kind::Table)
    }

    /// Belongs on a control connection, not on a data connection.
    pub fn is_control(self) -> bool {
        self as u16 >= Kind::ControlHello as u16
    }

    /// A payload may follow the body.
    pub fn has_payload(self) -> bool {
        matches!(self, Kind::Data | Kind::ResyncData | Kind::ReadReply)
    }
}

const NUMBERS: usize = Kind::Table as usize + 1;

/// Every type at the place of its number.
static BY_NUMBER: [Option<Kind>; NUMBERS] = {
    let mut table = [None; NUMBERS];
    let mut index = 0;
    while index < Kind::ALL.len() {
        table[Kind::ALL[index] as usize] = Some(Kind::ALL[index]);
        index += 1;
    }
    table
};
