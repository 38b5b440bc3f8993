//! Pure: no async, no I/O.
