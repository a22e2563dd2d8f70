//! Nodes of two releases: they talk if any version of the protocol is spoken by both (law O6).

use super::*;

fn of(alpha: RangeInclusive<u16>, beta: RangeInclusive<u16>) -> [Stand; 2] {
    pair_of(|c| c.protocol = alpha, |c| c.protocol = beta)
}

#[test]
fn releases_with_a_version_in_common_connect() {
    for (alpha, beta) in [
        (1..=1, 1..=2),
        (1..=2, 1..=1),
        (2..=3, 1..=2),
        (1..=1, 0..=1),
    ] {
        let what = format!("{alpha:?} and {beta:?}");
        let [alpha, beta] = of(alpha, beta);
        until(&what, || {
            alpha.ear.heard().connected == 1 && beta.ear.heard().connected == 1
        });
        assert!(alpha.ear.heard().refused.is_empty(), "{what}");
        assert!(beta.ear.heard().refused.is_empty(), "{what}");
    }
}

#[test]
fn releases_without_one_refuse_each_other_on_both_sides() {
    let text = |theirs: &RangeInclusive<u16>, own: &RangeInclusive<u16>| {
        format!(
            "no common protocol version: it speaks {} to {}, this node {} to {}",
            theirs.start(),
            theirs.end(),
            own.start(),
            own.end()
        )
    };
    for (old, new) in [(1..=1, 2..=3), (2..=4, 1..=1)] {
        let [alpha, beta] = of(old.clone(), new.clone());
        alpha.until_said("W101", &text(&new, &old));
        beta.until_said("W110", &text(&old, &new));
        until("the volumes hear of it", || {
            let is_told = |stand: &Stand, peer: &str| {
                let refused = &stand.ear.heard().refused;
                refused.contains(&(peer.to_owned(), Refusal::Protocol))
            };
            is_told(&alpha, "beta") && is_told(&beta, "alpha")
        });
        assert_eq!(alpha.ear.heard().connected + beta.ear.heard().connected, 0);
        assert!(alpha.ear.heard().links.is_empty() && beta.ear.heard().links.is_empty());
    }
}
