//! Wires; what needs a test belongs elsewhere.

fn main() {}
