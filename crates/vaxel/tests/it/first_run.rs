//! A first run from nothing.
