//! io_uring, buffers and registered files behind one safe interface.
