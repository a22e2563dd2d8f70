//! Which meta contexts a request means, and which a client has selected.

use super::SelectedContext;
use crate::{ExportName, MetaQueries};

/// What the last SET_META_CONTEXT chose. It counts only for the export it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// The name as the client wrote it.
    pub(super) export: ExportName,
    /// Contexts by their names and ids.
    pub(super) contexts: Vec<SelectedContext>,
}

/// The contexts of `offered` a LIST means, in the order offered: all without a query, those of a
/// namespace for `namespace:`.
pub(super) fn listed<'a>(offered: &'a [String], queries: &MetaQueries<'_>) -> Vec<&'a str> {
    let mut hit = vec![queries.count() == 0; offered.len()];
    for query in queries.iter() {
        for (hit, name) in hit.iter_mut().zip(offered) {
            let wildcard = query.ends_with(b":") && name.as_bytes().starts_with(query);
            *hit |= wildcard || name.as_bytes() == query;
        }
    }
    offered
        .iter()
        .zip(hit)
        .filter(|(_, hit)| *hit)
        .map(|(name, _)| name.as_str())
        .collect()
}

/// The contexts of `offered` a SET selects, in the order offered: exact names alone, each once.
pub(super) fn selected(offered: &[String], queries: &MetaQueries<'_>) -> Vec<SelectedContext> {
    let mut hit = vec![false; offered.len()];
    for query in queries.iter() {
        for (hit, name) in hit.iter_mut().zip(offered) {
            *hit |= name.as_bytes() == query;
        }
    }
    (1..)
        .zip(offered.iter().zip(hit))
        .filter(|(_, (_, hit))| *hit)
        .map(|(id, (name, _))| SelectedContext {
            id,
            name: name.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetaRequest;

    fn ask<T>(queries: &[&str], answer: impl FnOnce(&[String], &MetaQueries<'_>) -> T) -> T {
        let offered = ["base:allocation", "x-pollux:dirty/a", "x-pollux:dirty/b"];
        let mut data = Vec::new();
        MetaRequest::encode(&ExportName::default(), queries, &mut data);
        let request = MetaRequest::parse(&data).unwrap();
        answer(&offered.map(str::to_owned), &request.queries)
    }

    fn list(queries: &[&str]) -> Vec<String> {
        ask(queries, |offered, queries| {
            listed(offered, queries)
                .into_iter()
                .map(str::to_owned)
                .collect()
        })
    }

    fn set(queries: &[&str]) -> Vec<u32> {
        ask(queries, |offered, queries| {
            selected(offered, queries).iter().map(|c| c.id).collect()
        })
    }

    #[test]
    fn a_list_without_queries_names_all() {
        assert_eq!(list(&[]).len(), 3);
    }

    #[test]
    fn a_set_without_queries_selects_nothing() {
        assert!(set(&[]).is_empty());
    }

    #[test]
    fn a_namespace_is_a_wildcard_for_lists_alone() {
        assert_eq!(list(&["base:"]), ["base:allocation"]);
        assert_eq!(
            list(&["x-pollux:"]),
            ["x-pollux:dirty/a", "x-pollux:dirty/b"]
        );
        assert!(set(&["base:", "x-pollux:"]).is_empty());
    }

    #[test]
    fn duplicate_queries_give_one_context() {
        assert_eq!(
            list(&["base:", "base:allocation", "base:"]),
            ["base:allocation"]
        );
        assert_eq!(set(&["base:allocation", "base:allocation"]), [1]);
    }

    #[test]
    fn unknown_queries_are_ignored() {
        assert_eq!(
            set(&["", "qemu:x", "base", "base:alloc", ":", "x-pollux:dirty/b"]),
            [3]
        );
        assert!(list(&["", "nonsense", "qemu:", ":"]).is_empty());
    }
}
