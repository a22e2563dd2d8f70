//! Unmodified clients against the real daemon.
