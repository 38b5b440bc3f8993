//! Vaxel as a whole: the rules of its house, and the binary with real programs on both sides.
mod tidy;
