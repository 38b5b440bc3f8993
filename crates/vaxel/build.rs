//! Has the binary linked so that less of it is in memory: what a start does not need stands apart
//! (`cold.ld`), and relocations are written in short where the system's loader can read that. There are
//! fifty thousand of them. Written out they are pages of the binary that the loader reads at every start,
//! and which count as memory from then on.

use std::{env, path::Path, process::Command};

/// The first glibc whose loader reads them (its release notes, "`DT_RELR`").
const READS_SHORT: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cold.ld");
    let says = |name: &str, value: &str| env::var_os(name).is_some_and(|said| said == value);
    let is_for_here = env::var_os("HOST") == env::var_os("TARGET");
    let is_linux = says("CARGO_CFG_TARGET_OS", "linux");
    let is_glibc = is_linux && says("CARGO_CFG_TARGET_ENV", "gnu");
    let is_shipped = says("PROFILE", "release");
    if is_shipped && is_linux {
        let folder = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let script = Path::new(&folder).join("cold.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
    if is_shipped && is_for_here && is_glibc && glibc().is_some_and(|found| found >= READS_SHORT) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of the system's glibc.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = String::from_utf8(said.ok()?.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
