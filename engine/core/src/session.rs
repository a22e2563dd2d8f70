//! The session with one peer: an enum and one transition function.
//!
//! A session always begins with a handshake that judges durable facts; whatever changes those
//! facts in a way that the present state does not follow drops the link, and the next handshake
//! decides anew. So there are few states and no shortcut between them.

use crate::event::LinkId;
use crate::message::Refusal;

/// What the handshake decided, from this side's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Both hold the same history and belong to S.
    Equal,
    /// The peer lacks what we have.
    Source,
    /// We lack what the peer has.
    Target,
    /// The peer is blank and takes our volume's identity.
    Adopt,
    /// We are blank and take the peer's identity.
    Adopted,
    /// Nothing to do now: both blank, or nobody has data the other may take.
    Idle,
    /// Split brain: both tell what they changed, and nothing flows.
    Parted(Refusal),
}

/// State of the session with one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Not talked to until an operator says so.
    Standalone(Refusal),
    /// Wanted, no link.
    Connecting,
    /// Link up, hellos under way.
    Handshake(LinkId),
    /// Agreed; telling each other what may differ.
    Exchange(LinkId, Plan),
    /// Connected, and nothing flows until something changes.
    Waiting(LinkId),
    /// Every write goes there, every confirmation counts.
    InSync(LinkId),
    /// It pulls what it lacks from us.
    Source(LinkId),
    /// We pull what we lack from it.
    Target(LinkId),
    /// Split brain, with all told that an operator needs to decide: nothing flows.
    Parted(LinkId, Refusal),
}

/// What moves a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// A connection stands.
    LinkUp(LinkId),
    /// It is gone.
    LinkDown,
    /// Both hellos fit.
    Agreed(Plan),
    /// Both sides said what may differ; `clean` if nothing does.
    Exchanged {
        /// Nothing differs.
        clean: bool,
    },
    /// The target joined S.
    Joined,
    /// One side will not talk; `is_final` needs an operator.
    Refused(Refusal, bool),
    /// An operator wants it down.
    Disconnect,
    /// An operator wants it up.
    Connect,
}

/// An event that has no place in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// Where.
    pub state: Session,
    /// What.
    pub event: SessionEvent,
}

impl Session {
    /// The link in use.
    pub fn link(self) -> Option<LinkId> {
        use Session as S;
        match self {
            S::Standalone(_) | S::Connecting => None,
            S::Handshake(l) | S::Exchange(l, _) | S::Waiting(l) => Some(l),
            S::InSync(l) | S::Source(l) | S::Target(l) | S::Parted(l, _) => Some(l),
        }
    }

    /// The link on which application writes are sent to this peer.
    #[inline]
    pub fn data_link(self) -> Option<LinkId> {
        match self {
            Session::InSync(link) | Session::Source(link) => Some(link),
            _ => None,
        }
    }

    /// One side pulls from the other.
    pub fn is_resync(self) -> bool {
        matches!(self, Session::Source(_) | Session::Target(_))
    }

    /// The peer sends writes to us: as a member of its S, or while it makes us one.
    #[inline]
    pub fn is_fed(self) -> bool {
        matches!(self, Session::InSync(_) | Session::Target(_))
    }

    /// Every edge of a session is here. What is not written is refused.
    pub fn next(self, event: SessionEvent) -> Result<Session, Misplaced> {
        use Session as S;
        use SessionEvent as E;
        Ok(match (self, event) {
            // Of those that are not talked to, the core lets in only who it parted with: to compare.
            (S::Connecting | S::Standalone(_), E::LinkUp(link)) => S::Handshake(link),
            (S::Handshake(link), E::Agreed(plan)) => S::Exchange(link, plan),
            (S::Exchange(link, Plan::Equal), E::Exchanged { clean: true }) => S::InSync(link),
            (S::Exchange(link, Plan::Equal), E::Exchanged { clean: false }) => S::Waiting(link),
            (S::Exchange(link, Plan::Source), E::Exchanged { .. }) => S::Source(link),
            (S::Exchange(link, Plan::Target), E::Exchanged { .. }) => S::Target(link),
            (S::Exchange(link, Plan::Parted(why)), E::Exchanged { .. }) => S::Parted(link, why),
            // After an adoption the facts are new: the next handshake judges them.
            (S::Exchange(link, _), E::Exchanged { .. }) => S::Waiting(link),
            (S::Source(link) | S::Target(link), E::Joined) => S::InSync(link),
            (S::Standalone(why), E::LinkDown) => S::Standalone(why),
            (S::Parted(_, why) | S::Exchange(_, Plan::Parted(why)), E::LinkDown) => {
                S::Standalone(why)
            }
            (_, E::LinkDown) => S::Connecting,
            (S::Standalone(why), E::Refused(..)) => S::Standalone(why),
            (S::Parted(_, why) | S::Exchange(_, Plan::Parted(why)), E::Refused(_, false)) => {
                S::Standalone(why)
            }
            // Split brain: an operator chooses the survivor, never we.
            (_, E::Refused(why, true)) => S::Standalone(why),
            (_, E::Refused(_, false)) => S::Connecting,
            (_, E::Disconnect) => S::Standalone(Refusal::Operator),
            (S::Standalone(_), E::Connect) => S::Connecting,
            (state, E::Connect) => state,
            (state, event) => return Err(Misplaced { state, event }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_of_a_session_is_written_down() {
        let l = LinkId(1);
        let states = [
            Session::Standalone(Refusal::Diverged),
            Session::Connecting,
            Session::Handshake(l),
            Session::Exchange(l, Plan::Equal),
            Session::Exchange(l, Plan::Source),
            Session::Exchange(l, Plan::Target),
            Session::Exchange(l, Plan::Idle),
            Session::Exchange(l, Plan::Parted(Refusal::Diverged)),
            Session::Waiting(l),
            Session::InSync(l),
            Session::Source(l),
            Session::Target(l),
            Session::Parted(l, Refusal::Diverged),
        ];
        let events = [
            SessionEvent::LinkUp(LinkId(2)),
            SessionEvent::LinkDown,
            SessionEvent::Agreed(Plan::Equal),
            SessionEvent::Exchanged { clean: true },
            SessionEvent::Exchanged { clean: false },
            SessionEvent::Joined,
            SessionEvent::Refused(Refusal::Diverged, true),
            SessionEvent::Refused(Refusal::Size, false),
            SessionEvent::Disconnect,
            SessionEvent::Connect,
        ];
        let mut table = String::new();
        for state in states {
            for event in events {
                let after = match state.next(event) {
                    Ok(next) => format!("{next:?}"),
                    Err(_) => "refused".into(),
                };
                table.push_str(&format!("{state:?} + {event:?} -> {after}\n"));
            }
        }
        let expected = include_str!("session/edges.txt");
        assert_eq!(
            table, expected,
            "an edge changed; if it is meant, write the new table down"
        );
    }
}
