//! When a write may be acknowledged: one pure function of its legs and the policy.

use crate::units::NodeSet;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Every member of S has it on stable storage.
    Durable,
    /// Every member of S stored it.
    Written,
    /// Every member of S holds it in memory (law R9; refused by the configuration).
    Received,
    /// The primary stored it (law R9; refused by the configuration).
    Local,
}

/// Where a write stands. Each set holds nodes that have a leg of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Legs {
    /// The primary alone.
    pub local: NodeSet,
    /// Members whose confirmation counts: S, and while S changes, old and new S (law T4).
    pub required: NodeSet,
    /// Those that hold it in memory.
    pub received: NodeSet,
    /// Those that confirmed it as the policy asks: stored, or durable.
    pub confirmed: NodeSet,
    /// Those that said they could not.
    pub failed: NodeSet,
}

/// What follows for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet.
    Wait,
    /// Acknowledge.
    Ack,
    /// No required member can ever confirm it.
    Fail,
}

/// Law R2 (and R9 for the weak policies).
pub fn verdict(legs: &Legs, policy: Policy) -> Verdict {
    let needed = match policy {
        Policy::Local => legs.required.and(legs.local),
        _ => legs.required,
    };
    let have = match policy {
        Policy::Received => legs.received.or(legs.confirmed),
        _ => legs.confirmed,
    };
    if needed.is_empty() || legs.failed.contains(needed) {
        return Verdict::Fail;
    }
    if have.contains(needed) {
        Verdict::Ack
    } else {
        Verdict::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u8) -> NodeSet {
        NodeSet(bits)
    }

    #[test]
    fn every_member_must_confirm_and_nobody_else_counts() {
        for bits in 0..64u8 {
            let (required, confirmed) = (set(bits & 7), set(bits >> 3));
            let legs = Legs {
                local: set(1),
                required,
                received: NodeSet::EMPTY,
                confirmed,
                failed: NodeSet::EMPTY,
            };
            let expected = match (required.is_empty(), confirmed.contains(required)) {
                (true, _) => Verdict::Fail,
                (_, true) => Verdict::Ack,
                _ => Verdict::Wait,
            };
            assert_eq!(verdict(&legs, Policy::Written), expected, "{legs:?}");
            assert_eq!(verdict(&legs, Policy::Durable), expected, "{legs:?}");
        }
    }

    #[test]
    fn one_failed_member_waits_for_its_removal_and_all_failed_is_failure() {
        let mut legs = Legs {
            local: set(1),
            required: set(3),
            received: set(3),
            confirmed: set(1),
            failed: set(2),
        };
        assert_eq!(verdict(&legs, Policy::Written), Verdict::Wait);
        legs.required = set(1);
        assert_eq!(verdict(&legs, Policy::Written), Verdict::Ack);
        (legs.required, legs.failed, legs.confirmed) = (set(3), set(3), set(0));
        assert_eq!(verdict(&legs, Policy::Written), Verdict::Fail);
    }

    #[test]
    fn weak_policies_count_what_they_say() {
        let legs = Legs {
            local: set(1),
            required: set(3),
            received: set(2),
            confirmed: set(1),
            failed: set(0),
        };
        assert_eq!(verdict(&legs, Policy::Received), Verdict::Ack);
        assert_eq!(verdict(&legs, Policy::Local), Verdict::Ack);
        assert_eq!(verdict(&legs, Policy::Written), Verdict::Wait);
    }
}
