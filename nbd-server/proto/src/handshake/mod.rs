//! Messages of the handshake, one per file: greeting, options and their replies.

pub(crate) mod client_answer;
pub(crate) mod export_name_reply;
pub(crate) mod greeting;
pub(crate) mod info;
pub(crate) mod info_request;
pub(crate) mod list_entry;
pub(crate) mod meta_context;
pub(crate) mod meta_request;
pub(crate) mod option_reply;
pub(crate) mod option_request;

pub use client_answer::ClientAnswer;
pub use export_name_reply::ExportNameReply;
pub use greeting::Greeting;
pub use info::{BlockSizes, Info, WrongBlockSizes};
pub use info_request::{InfoRequest, Wanted};
pub use list_entry::ListEntry;
pub use meta_context::MetaContext;
pub use meta_request::{MetaQueries, MetaRequest};
pub use option_reply::{OptionReply, OptionReplyHeader};
pub use option_request::OptionHeader;
