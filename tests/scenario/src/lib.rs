//! Real processes killed, paused and cut off.
