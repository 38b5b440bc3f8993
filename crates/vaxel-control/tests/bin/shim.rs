//! Stands in for `vaxel shim` in the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1) {
        Some(socket) => vaxel_supervisor::shim::main(&socket),
        None => ExitCode::FAILURE,
    }
}
