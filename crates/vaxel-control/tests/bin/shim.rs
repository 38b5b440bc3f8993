//! Stands in for `vaxel shim`.

fn main() {}
