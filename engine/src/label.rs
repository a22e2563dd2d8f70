//! The name of an export, shared by all who hold on to it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// An export and its name now. Copies are the same export: renamed once, it is renamed for all. Two
/// exports are never equal, whatever they are called.
#[derive(Clone, Default)]
pub struct ExportLabel(Arc<RwLock<String>>);

impl ExportLabel {
    /// An export of this name.
    pub fn new(name: &str) -> ExportLabel {
        ExportLabel(Arc::new(RwLock::new(name.to_owned())))
    }

    /// Its name now.
    pub fn name(&self) -> String {
        let name = self.0.read();
        name.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another name from now on, for all who hold it.
    pub fn rename(&self, name: &str) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        name.clone_into(&mut held);
    }
}

impl PartialEq for ExportLabel {
    fn eq(&self, other: &ExportLabel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ExportLabel {}

impl fmt::Display for ExportLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for ExportLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_renamed_for_all_who_hold_it_and_equals_no_other() {
        let first = ExportLabel::new("disk");
        let held = first.clone();
        first.rename("data");
        assert_eq!(held.name(), "data");
        assert_eq!(held, first);
        assert_ne!(held, ExportLabel::new("data"));
    }
}
