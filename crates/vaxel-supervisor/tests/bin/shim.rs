//! Stands in for `vaxel shim` in the tests of this crate.

fn main() -> std::process::ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    vaxel_supervisor::shim::main(&name)
}
