//! How each option is answered.

use super::contexts::Selection;
use super::{
    CloseReason, Done, ExportInfo, Exports, Negotiated, Negotiation, OptionError, Refusal,
    SelectedContext, Tls, contexts,
};
use crate::codes::{ClientFlags, OptionCode, OptionReplyKind, TransmissionFlags};
use crate::{
    ContextSet, ExportName, ExportNameReply, Info, InfoRequest, ListEntry, Malformed, MetaContext,
    MetaQueries, MetaRequest, OptionReply, ReplyStyle,
};

impl Negotiation {
    /// Serves an option that is answered by replies and at last an acknowledgement or an error.
    /// Only GO comes to an agreement.
    pub(super) fn option(
        &mut self,
        option: OptionCode,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Result<Option<Negotiated>, OptionError> {
        let reply = OptionReply { option };
        if option == OptionCode::SET_META_CONTEXT {
            // Also when this fails, what was selected before no longer counts.
            self.selection = None;
        }
        if let Some(text) = &self.shutdown {
            return Err((OptionReplyKind::ERR_SHUTDOWN, text.clone()));
        }
        self.protected()?;
        match option {
            OptionCode::LIST => self.list(data, exports, reply, out)?,
            OptionCode::INFO => {
                self.describe(data, exports, reply, out)?;
            }
            OptionCode::GO => {
                let (asked, export) = self.describe(data, exports, reply, out)?;
                return Ok(Some(self.agree(&asked, export)));
            }
            OptionCode::STRUCTURED_REPLY if self.policy.structured_replies => {
                no_data(data)?;
                if self.replies == ReplyStyle::Extended {
                    let text = "extended headers are on, replies are structured".to_owned();
                    return Err((OptionReplyKind::ERR_EXT_HEADER_REQD, text));
                }
                self.replies = ReplyStyle::Structured;
            }
            OptionCode::EXTENDED_HEADERS if self.policy.offers_extended_headers() => {
                no_data(data)?;
                self.replies = ReplyStyle::Extended;
            }
            OptionCode::LIST_META_CONTEXT if self.policy.structured_replies => {
                let (_, export, queries) = self.meta_request(data, exports)?;
                for name in contexts::listed(&export.contexts, &queries) {
                    reply.with(OptionReplyKind::META_CONTEXT, out, |out| {
                        MetaContext { id: 0, name }.encode(out);
                    });
                }
            }
            OptionCode::SET_META_CONTEXT if self.policy.structured_replies => {
                let (asked, export, queries) = self.meta_request(data, exports)?;
                let contexts = contexts::selected(&export.contexts, &queries);
                if contexts.len() > ContextSet::MAX {
                    let text = format!("more than {} contexts", ContextSet::MAX);
                    return Err((OptionReplyKind::ERR_TOO_BIG, text));
                }
                for SelectedContext { id, name } in &contexts {
                    reply.with(OptionReplyKind::META_CONTEXT, out, |out| {
                        MetaContext { id: *id, name }.encode(out);
                    });
                }
                self.selection = Some(Selection {
                    export: asked,
                    contexts,
                });
            }
            _ => {
                let text = format!("option {} is not supported", option.0);
                return Err((OptionReplyKind::ERR_UNSUP, text));
            }
        }
        Ok(None)
    }

    /// EXPORT_NAME succeeds or ends the connection: it knows no error reply.
    pub(super) fn export_name(
        &mut self,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Done {
        let close = |text: String| Done::Close(CloseReason::ExportName(text));
        if let Some(text) = &self.shutdown {
            return close(text.clone());
        }
        if let Err((_, text)) = self.protected() {
            return close(text);
        }
        if self.replies == ReplyStyle::Extended {
            return close("after extended headers an export is chosen by GO".to_owned());
        }
        let asked = match ExportName::from_wire(data) {
            Ok(name) => name,
            Err(malformed) => return close(malformed.to_string()),
        };
        match self.lookup(&asked, exports) {
            Err((_, text)) => close(text),
            Ok(export) => {
                let agreed = self.agree(&asked, export);
                ExportNameReply {
                    size: agreed.export.size,
                    flags: agreed.flags,
                }
                .encode(agreed.no_zeroes, out);
                Done::Enter(Box::new(agreed))
            }
        }
    }

    fn list(
        &self,
        data: &[u8],
        exports: &dyn Exports,
        reply: OptionReply,
        out: &mut Vec<u8>,
    ) -> Result<(), OptionError> {
        no_data(data)?;
        if !self.policy.list {
            let text = "this server does not list its exports".to_owned();
            return Err((OptionReplyKind::ERR_POLICY, text));
        }
        exports.list(&mut |entry: ListEntry<'_>| {
            reply.with(OptionReplyKind::SERVER, out, |out| entry.encode(out));
        });
        Ok(())
    }

    /// Nothing is said on a connection that must be under TLS and is not.
    fn protected(&self) -> Result<(), OptionError> {
        if self.policy.tls != Tls::Required || self.is_secure {
            return Ok(());
        }
        let text = "this server is to be used with TLS only".to_owned();
        Err((OptionReplyKind::ERR_TLS_REQD, text))
    }

    pub(super) fn start_tls(&self, data: &[u8]) -> Result<(), OptionError> {
        if let Some(text) = &self.shutdown {
            return Err((OptionReplyKind::ERR_SHUTDOWN, text.clone()));
        }
        no_data(data)?;
        let (kind, text) = match self.policy.tls {
            Tls::Unsupported => (OptionReplyKind::ERR_UNSUP, "this server has no TLS"),
            Tls::Refused => (
                OptionReplyKind::ERR_POLICY,
                "this listener does not use TLS",
            ),
            Tls::Offered | Tls::Required if self.is_secure => {
                (OptionReplyKind::ERR_INVALID, "TLS has begun before")
            }
            Tls::Offered | Tls::Required => return Ok(()),
        };
        Err((kind, text.to_owned()))
    }

    /// The export a client calls `asked`; the empty name is the default export.
    fn lookup(&self, asked: &ExportName, exports: &dyn Exports) -> Result<ExportInfo, OptionError> {
        let found = if asked.is_default() {
            exports
                .default_export()
                .ok_or(Refusal::Unknown)
                .and_then(|name| exports.lookup(&name))
        } else {
            exports.lookup(asked)
        };
        let could_begin_tls = self.policy.tls.is_offered() && !self.is_secure;
        found.map_err(|refusal| match refusal {
            Refusal::Unknown if asked.is_default() => (
                OptionReplyKind::ERR_UNKNOWN,
                "there is no default export".to_owned(),
            ),
            Refusal::Unknown => (
                OptionReplyKind::ERR_UNKNOWN,
                format!("there is no export `{asked}`"),
            ),
            Refusal::Tls(text) if could_begin_tls => (OptionReplyKind::ERR_TLS_REQD, text),
            Refusal::Policy(text) | Refusal::Tls(text) => (OptionReplyKind::ERR_POLICY, text),
            Refusal::Shutdown(text) => (OptionReplyKind::ERR_SHUTDOWN, text),
        })
    }

    /// Checks a meta context option as far as listing and selecting have in common.
    fn meta_request<'a>(
        &self,
        data: &'a [u8],
        exports: &dyn Exports,
    ) -> Result<(ExportName, ExportInfo, MetaQueries<'a>), OptionError> {
        if self.replies == ReplyStyle::Simple {
            let text = "meta contexts need structured replies first".to_owned();
            return Err((OptionReplyKind::ERR_INVALID, text));
        }
        let MetaRequest { name, queries } = MetaRequest::parse(data).map_err(malformed)?;
        if queries.count() > self.policy.queries_max {
            let text = format!("more than {} queries", self.policy.queries_max);
            return Err((OptionReplyKind::ERR_TOO_BIG, text));
        }
        let export = self.lookup(&name, exports)?;
        Ok((name, export, queries))
    }

    /// Sends what INFO and GO tell, in a fixed order, and returns the export with the name asked for.
    fn describe(
        &self,
        data: &[u8],
        exports: &dyn Exports,
        reply: OptionReply,
        out: &mut Vec<u8>,
    ) -> Result<(ExportName, ExportInfo), OptionError> {
        let InfoRequest {
            name: asked,
            wanted,
        } = InfoRequest::parse(data).map_err(malformed)?;
        let export = self.lookup(&asked, exports)?;
        let mut tell = |info: Info<'_>| {
            reply.with(OptionReplyKind::INFO, out, |out| info.encode(out));
        };
        tell(Info::Export {
            size: export.size,
            flags: self.flags(&export, !self.contexts(&asked, &export).is_empty()),
        });
        if wanted.name {
            tell(Info::Name(export.name.as_str()));
        }
        if wanted.description && !export.description.is_empty() {
            tell(Info::Description(&export.description));
        }
        if wanted.block_size {
            tell(export.block_sizes.to_info());
        }
        Ok((asked, export))
    }

    /// What was selected of `export`, which the client calls `asked`.
    fn contexts(&self, asked: &ExportName, export: &ExportInfo) -> Vec<SelectedContext> {
        let selected = self.selection.as_ref().filter(|s| s.export == *asked);
        let selected = selected.map_or(&[][..], |selection| &selection.contexts);
        // The export may have lost a context since.
        let is_offered = |context: &&SelectedContext| export.contexts.contains(&context.name);
        selected.iter().filter(is_offered).cloned().collect()
    }

    /// The transmission flags as things stand.
    fn flags(&self, export: &ExportInfo, has_contexts: bool) -> TransmissionFlags {
        let filters = self.replies == ReplyStyle::Extended && has_contexts;
        export
            .flags(self.replies)
            .with_if(TransmissionFlags::BLOCK_STATUS_PAYLOAD, filters)
    }

    /// Settles on `export`, which the client called `asked`.
    fn agree(&self, asked: &ExportName, export: ExportInfo) -> Negotiated {
        let contexts = self.contexts(asked, &export);
        Negotiated {
            flags: self.flags(&export, !contexts.is_empty()),
            export,
            replies: self.replies,
            contexts,
            no_zeroes: self.client.contains(ClientFlags::NO_ZEROES),
        }
    }
}

fn no_data(data: &[u8]) -> Result<(), OptionError> {
    match data.len() {
        0 => Ok(()),
        length => {
            let text = format!("this option has no data, {length} bytes came");
            Err((OptionReplyKind::ERR_INVALID, text))
        }
    }
}

fn malformed(cause: Malformed) -> OptionError {
    (cause.as_option_error(), cause.to_string())
}
