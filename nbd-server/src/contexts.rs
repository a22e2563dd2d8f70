//! Names of meta contexts, and what they ask of a volume.
//!
//! | name | flags |
//! |---|---|
//! | `base:allocation` | bit 0 hole, bit 1 reads as zeroes |
//! | `x-pollux:replicated` | bit 0 at least one peer lacks it |
//! | `x-pollux:dirty/<mark>`, `qemu:dirty-bitmap:<mark>` | bit 0 written since the mark was made |

use std::sync::Arc;

use engine::front_end::ExtentKind;
use nbd_proto::BASE_ALLOCATION;

const REPLICATED: &str = "x-pollux:replicated";
const DIRTY: &str = "x-pollux:dirty/";
/// What clients of other servers call it.
const DIRTY_ALIAS: &str = "qemu:dirty-bitmap:";

/// Names under which a kind is offered.
pub(crate) fn names(kind: &ExtentKind) -> Vec<String> {
    match kind {
        ExtentKind::Allocation => vec![BASE_ALLOCATION.to_owned()],
        ExtentKind::Replicated => vec![REPLICATED.to_owned()],
        ExtentKind::Mark(mark) => [DIRTY, DIRTY_ALIAS]
            .map(|prefix| format!("{prefix}{mark}"))
            .into(),
    }
}

/// The kind that has this name; `None` if none ever has.
pub(crate) fn kind(name: &str) -> Option<ExtentKind> {
    match name {
        BASE_ALLOCATION => Some(ExtentKind::Allocation),
        REPLICATED => Some(ExtentKind::Replicated),
        _ => {
            let mark = name.strip_prefix(DIRTY);
            let mark = mark.or_else(|| name.strip_prefix(DIRTY_ALIAS))?;
            Some(ExtentKind::Mark(Arc::from(mark)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_the_kind_that_has_it() {
        let mark = ExtentKind::Mark(Arc::from("monday"));
        for of in [ExtentKind::Allocation, ExtentKind::Replicated, mark.clone()] {
            assert!(
                names(&of)
                    .iter()
                    .all(|name| kind(name).as_ref() == Some(&of))
            );
        }
        let both = ["x-pollux:dirty/monday", "qemu:dirty-bitmap:monday"];
        assert_eq!(names(&mark), both);
        assert_eq!(kind("qemu:allocation-depth"), None);
    }
}
