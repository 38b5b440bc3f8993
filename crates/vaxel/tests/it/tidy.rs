//! The rules of the house that no lint knows: who may use whom, how long a file may get, what has to
//! be written down. `ARCHITECTURE.md` says why; a failure here names every place at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use vaxel_core::failure::{KINDS, facts};

/// Every crate, the words that its first lines must hold, and which crates of ours it may use.
/// Arrows point down only.
const HOUSE: &[(&str, &str, &[&str])] = &[
    ("vaxel-core", "no async, no i/o", &[]),
    (
        "vaxel-mcp",
        "opens no socket, knows no policy, holds no key",
        &["core"],
    ),
    ("vaxel-auth", "decides nothing about resources", &["core"]),
    (
        "vaxel-egress",
        "every outgoing connection passes here",
        &["core"],
    ),
    ("vaxel-supervisor", "knows no http and no mcp", &["core"]),
    (
        "vaxel-store",
        "the only place that knows the sql engine",
        &["core"],
    ),
    (
        "vaxel-gateway",
        "nothing here waits for the database",
        &["core", "mcp", "auth", "egress", "supervisor"],
    ),
    (
        "vaxel-control",
        "every change goes through",
        &[
            "core",
            "mcp",
            "auth",
            "egress",
            "store",
            "supervisor",
            "gateway",
        ],
    ),
    (
        "vaxel-api",
        "contains no rule",
        &["core", "auth", "control", "gateway"],
    ),
    (
        "vaxel-client",
        "what a program needs to talk to vaxel",
        &["core", "egress"],
    ),
    (
        "vaxel",
        "what needs a test belongs elsewhere",
        &[
            "core",
            "mcp",
            "auth",
            "egress",
            "supervisor",
            "store",
            "gateway",
            "control",
            "api",
            "client",
        ],
    ),
];

/// Libraries that only these crates may use, because the rest must not know of them.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("rusqlite", &["vaxel-store"]),
    ("tokio-postgres", &["vaxel-store"]),
    ("axum", &["vaxel-api", "vaxel"]),
    ("utoipa-axum", &["vaxel-api"]),
    ("landlock", &["vaxel-supervisor"]),
    ("hyper-rustls", &["vaxel-egress"]),
    ("clap", &["vaxel"]),
    ("anyhow", &["vaxel"]),
];

/// Libraries that a crate must not use, whatever it is for: its sentence forbids it.
const NEVER_IN: &[(&str, &[&str])] = &[
    (
        "vaxel-core",
        &["tokio", "hyper", "http", "rustix", "tracing", "parking_lot"],
    ),
    ("vaxel-mcp", &["tokio", "hyper", "rustix"]),
    ("vaxel-auth", &["tokio", "hyper"]),
    ("vaxel-supervisor", &["hyper", "http"]),
];

const FILE_LINES: usize = 800;
const MODULE_DEPTH: usize = 2;
const ARCHITECTURE_LINES: usize = 340;

#[test]
fn crates_use_only_what_the_table_allows() {
    let allowed: BTreeMap<_, _> = HOUSE.iter().map(|(name, _, may)| (*name, *may)).collect();
    let mut offences = Vec::new();
    for (name, dependencies) in crates() {
        let Some(may) = allowed.get(name.as_str()) else {
            offences.push(format!(
                "`{name}` is not in the table: give it a sentence and a row"
            ));
            continue;
        };
        for ours in dependencies
            .iter()
            .filter_map(|used| used.strip_prefix("vaxel-"))
        {
            if !may.contains(&ours) {
                offences.push(format!("`{name}` uses `vaxel-{ours}`"));
            }
        }
    }
    none("the table of allowed dependencies", &offences);
}

#[test]
fn libraries_stay_where_they_are_known() {
    let mut offences = Vec::new();
    for (name, dependencies) in crates() {
        for (library, owners) in ONLY_IN {
            if dependencies.contains(*library) && !owners.contains(&name.as_str()) {
                offences.push(format!(
                    "`{name}` uses `{library}`, which belongs to {owners:?}"
                ));
            }
        }
        for (_, banned) in NEVER_IN.iter().filter(|(of, _)| *of == name) {
            for library in banned
                .iter()
                .filter(|library| dependencies.contains(**library))
            {
                offences.push(format!(
                    "`{name}` uses `{library}`, against its own sentence"
                ));
            }
        }
    }
    none("where libraries may be used", &offences);
}

#[test]
fn core_touches_no_file_no_network_no_environment_and_no_thread() {
    let world = [
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "TcpStream",
        "UdpSocket",
    ];
    let mut offences = Vec::new();
    for file in rust_files(&root().join("crates/vaxel-core/src")) {
        let text = read(&file);
        for word in world
            .iter()
            .filter(|word| own_lines(&text).any(|line| line.contains(**word)))
        {
            offences.push(format!("{} uses {word}", shown(&file)));
        }
    }
    none("what `vaxel-core` may touch", &offences);
}

#[test]
fn every_crate_begins_with_its_sentence() {
    let mut offences = Vec::new();
    for (name, sentence, _) in HOUSE {
        let source = root().join("crates").join(name).join("src");
        let entry = ["lib.rs", "main.rs"].map(|file| source.join(file));
        let doc = entry
            .iter()
            .find(|file| file.exists())
            .map(|file| module_doc(&read(file)));
        if !doc.unwrap_or_default().to_lowercase().contains(sentence) {
            offences.push(format!("`{name}` does not begin with: {sentence}"));
        }
    }
    none("the sentence of each crate", &offences);
}

#[test]
fn every_module_says_what_it_is() {
    let offences: Vec<_> = all_rust_files()
        .iter()
        .filter(|file| !file.ends_with("tests.rs") && !read(file).starts_with("//! "))
        .map(|file| shown(file))
        .collect();
    none("files that do not begin with `//! `", &offences);
}

#[test]
fn files_stay_small_and_modules_flat() {
    let mut offences = Vec::new();
    for file in all_rust_files() {
        let lines = own_lines(&read(&file)).count();
        if lines > FILE_LINES && !is_test(&file) {
            offences.push(format!(
                "{} has {lines} lines, {FILE_LINES} at most",
                shown(&file)
            ));
        }
        let inside = file
            .components()
            .skip_while(|part| part.as_os_str() != "src")
            .skip(1);
        if inside.count() > MODULE_DEPTH && !is_test(&file) {
            offences.push(format!("{} is nested too deep", shown(&file)));
        }
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if [
            "mod", "common", "utils", "util", "types", "helpers", "shared",
        ]
        .contains(&name.as_str())
        {
            offences.push(format!("{}: name the concept instead", shown(&file)));
        }
    }
    none("size, depth and names of files", &offences);
}

#[test]
fn every_kind_of_failure_has_a_page_that_says_what_to_do() {
    let folder = root().join("docs/errors");
    let mut offences = Vec::new();
    let mut slugs = BTreeSet::new();
    for kind in KINDS {
        let facts = facts(*kind);
        slugs.insert(facts.slug.to_owned());
        let page = folder.join(facts.slug).with_extension("md");
        let text = fs::read_to_string(&page).unwrap_or_default();
        if !text.starts_with(&format!("# {}\n", facts.title)) {
            offences.push(format!(
                "{} must begin with `# {}`",
                shown(&page),
                facts.title
            ));
        }
        for part in ["\n## What to do\n", "\n## Example\n"] {
            if !text.contains(part) {
                offences.push(format!("{} lacks `{}`", shown(&page), part.trim()));
            }
        }
    }
    for page in files_below(&folder) {
        let slug = page
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !slugs.contains(&slug) {
            offences.push(format!("{} explains no kind of failure", shown(&page)));
        }
    }
    none("pages of failures", &offences);
}

#[test]
fn every_configuration_key_is_documented() {
    let file = root().join("crates/vaxel/src/config/config.default.toml");
    let manual = read(&file);
    let mut offences = Vec::new();
    let mut before = "";
    for line in manual.lines() {
        let documented = before.starts_with('#') || key_of(before).is_some();
        if let Some(key) = key_of(line).filter(|_| !documented) {
            offences.push(format!("{} says nothing about `{key}`", shown(&file)));
        }
        before = line;
    }
    none("the manual of the configuration", &offences);
}

#[test]
fn the_table_of_the_manual_names_keys_and_defaults_that_exist() {
    let file = root().join("crates/vaxel/src/config/config.default.toml");
    let manual = read(&file);
    let defaults: toml::Table = toml::from_str(&manual).expect("the manual is TOML");
    let mut offences = Vec::new();
    let mut rows = 0;
    for line in manual.lines().take_while(|line| line.starts_with('#')) {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| !is_key(word, &defaults));
        let Some(key) = words.next() else { continue };
        rows += 1;
        let default = words.find(|word| !matches!(*word, "×") && !is_key(word, &defaults));
        let (section, name) = key.split_once('.').unwrap_or_default();
        let value = defaults[section]
            .get(name)
            .map(ToString::to_string)
            .unwrap_or_default();
        if default != Some(value.trim_matches('"')) {
            offences.push(format!("`{key}` is {value}, the table says {default:?}"));
        }
    }
    assert!(
        rows > 15,
        "the table of limits was not found in {}",
        shown(&file)
    );
    none("the table of limits", &offences);
}

#[test]
fn documents_point_to_what_exists() {
    let mut offences = Vec::new();
    for file in files_below(&root())
        .iter()
        .filter(|file| has_extension(file, "md"))
    {
        let text = read(file);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.contains("://") || path.starts_with("mailto:");
            if path.is_empty() || elsewhere || file.with_file_name(path).exists() {
                continue;
            }
            offences.push(format!("{} points to `{target}`", shown(file)));
        }
    }
    none("links between documents", &offences);
}

#[test]
fn the_architecture_names_every_crate_and_stays_readable() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut offences: Vec<_> = crates()
        .into_keys()
        .filter(|name| !text.contains(&format!("`{name}`")))
        .map(|name| format!("`{name}` is missing"))
        .collect();
    if text.lines().count() > ARCHITECTURE_LINES {
        offences.push(format!("it is longer than {ARCHITECTURE_LINES} lines"));
    }
    none("ARCHITECTURE.md", &offences);
}

#[test]
fn nothing_names_the_folder_that_it_was_written_in() {
    let here = root();
    // A checkout directly below `/` says too little to search for.
    if here.components().count() < 3 {
        return;
    }
    let here = here.display().to_string();
    let offences: Vec<_> = files_below(&root())
        .into_iter()
        .filter(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&here)))
        .map(|file| shown(&file))
        .collect();
    none("files that name this folder", &offences);
}

#[track_caller]
fn none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace has a root")
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root())
        .unwrap_or(file)
        .display()
        .to_string()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"]
        .as_array()
        .expect("there are packages")
        .clone()
}

/// Our crates and what each is built from. What only tests use may be anything.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let used = |package: &Value| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(dependency, "name"))
            .collect()
    };
    packages()
        .iter()
        .map(|package| (text(package, "name"), used(package)))
        .collect()
}

/// Every file that belongs to the project, without what git ignores.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let ignored = ["target", ".git", ".tools", "node_modules", "__pycache__"];
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if ignored.iter().any(|name| folder.ends_with(name))
            || folder.ends_with("bench/work")
            || folder.ends_with("bench/results")
        {
            continue;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|file| has_extension(file, "rs"));
    files
}

fn all_rust_files() -> Vec<PathBuf> {
    let files = rust_files(&root().join("crates"));
    assert!(files.len() > 50, "the sources were not found");
    files
}

/// Whether a file holds tests only: in a `tests` folder, or the `tests.rs` of the module above it.
fn is_test(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

/// The lines of a file before its own tests.
fn own_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]")
}

/// The `//!` lines at the top, as running text.
fn module_doc(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The key that a line of the manual sets.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let plain =
        |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit();
    key.chars().all(plain).then_some(key)
}

/// Whether a word of the table is `section.key` of the defaults.
fn is_key(word: &str, defaults: &toml::Table) -> bool {
    word.split_once('.').is_some_and(|(section, name)| {
        defaults
            .get(section)
            .is_some_and(|section| section.get(name).is_some())
    })
}
