//! What may stand between a volume's actions and its store.

pub(crate) mod faulty;
