//! Lists the pages of `docs/errors`, so that the binary can serve them without a folder beside it.

use std::{error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?;
    let folder = Path::new(&here).join("../../docs/errors");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut pages: Vec<_> = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    pages.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    // By name without ending: `invalid` comes before `invalid-arguments`.
    pages.sort_by_key(|path| path.file_stem().map(ToOwned::to_owned));
    let mut list = String::from("&[\n");
    for page in pages {
        let slug = page
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let path = page.canonicalize()?;
        writeln!(
            list,
            "    ({slug:?}, include_str!({:?})),",
            path.display().to_string()
        )?;
    }
    list.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out).join("error_pages.rs"), list)?;
    Ok(())
}
