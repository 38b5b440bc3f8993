//! Files with services and sets, as `vaxel apply` reads them: all of them become one document, and every
//! problem is named with its file and the place there.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use vaxel_client::FieldProblem;
use vaxel_core::{
    bundle::{Entry, FORM, Parts, below, expand},
    failure::Issue,
    jsonc,
};

/// Everything that stands in some files.
#[derive(Default)]
pub(super) struct Documents {
    services: List,
    toolsets: List,
    templates: List,
    /// What is wrong, as sentences.
    pub(super) problems: Vec<String>,
    /// What was taken otherwise than it stands.
    pub(super) notes: Vec<String>,
}

/// Resources of one kind, with where each of them stands.
#[derive(Default)]
struct List {
    values: Vec<Value>,
    origins: Vec<(String, String)>,
}

/// What stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anything that says what it is.
    Document,
    /// One template.
    Template,
}

impl Documents {
    /// Reads files, folders and `-`, standard input. Variables in texts are replaced by `environment`.
    ///
    /// # Errors
    /// A file or folder that cannot be read; what is wrong with its content is in `problems`.
    pub(super) fn read(
        places: &[String],
        environment: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for place in places {
            if place == "-" {
                let mut text = String::new();
                let read = std::io::stdin().read_to_string(&mut text);
                read.context("standard input cannot be read")?;
                all.add(("standard input", Kind::Document), &text, environment);
                continue;
            }
            for (file, kind) in files(Path::new(place))? {
                let text = fs::read_to_string(&file);
                let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
                let name = file.display().to_string();
                all.add((&name, kind), &text, environment);
            }
        }
        Ok(all)
    }

    /// Whether nothing was found at all.
    pub(super) fn is_empty(&self) -> bool {
        let lists = [&self.services, &self.toolsets, &self.templates];
        lists.iter().all(|list| list.values.is_empty())
    }

    /// All as one document.
    pub(super) fn bundle(&self) -> Value {
        let mut bundle = json!({ "vaxel": FORM, "services": self.services.values });
        for (key, list) in [("toolsets", &self.toolsets), ("templates", &self.templates)] {
            if !list.values.is_empty() {
                bundle[key] = list.values.clone().into();
            }
        }
        bundle
    }

    /// A problem of the one document, as a sentence with the file where it stands.
    pub(super) fn place(&self, problem: &FieldProblem) -> String {
        let message = self.in_files(&problem.message, false);
        match self.in_files(&problem.path, true) {
            path if path.is_empty() => message,
            path => format!("{path}: {message}"),
        }
    }

    /// The text with places of the one document (`services[3]`) as places in files.
    fn in_files(&self, text: &str, is_path: bool) -> String {
        let lists = [
            ("services[", &self.services),
            ("toolsets[", &self.toolsets),
            ("templates[", &self.templates),
        ];
        for (key, list) in lists {
            let Some(at) = text.find(key).filter(|at| !is_path || *at == 0) else {
                continue;
            };
            let Some((number, rest)) = text[at + key.len()..].split_once(']') else {
                continue;
            };
            let origin = number.parse().ok().and_then(|n: usize| list.origins.get(n));
            let Some((file, path)) = origin else { continue };
            if is_path {
                let path = below(path, rest.trim_start_matches('.'));
                return labelled(file, &path);
            }
            return format!("{}{}{rest}", &text[..at], labelled(file, path));
        }
        text.to_owned()
    }

    fn add(
        &mut self,
        (file, kind): (&str, Kind),
        text: &str,
        environment: &BTreeMap<String, String>,
    ) {
        let extension = Path::new(file).extension().and_then(|kind| kind.to_str());
        let documents = parse(text, extension);
        let many = documents.len() > 1;
        for (number, document) in (1..).zip(documents) {
            let file = if many {
                format!("{file}, document {number}")
            } else {
                file.to_owned()
            };
            match document {
                Ok(value) if kind == Kind::Template => {
                    self.templates.values.push(value);
                    self.templates.origins.push((file, String::new()));
                }
                Ok(value) => self.take(&file, value, environment),
                Err(problem) => self.problems.push(format!("{file}: {problem}")),
            }
        }
    }

    fn take(&mut self, file: &str, mut value: Value, environment: &BTreeMap<String, String>) {
        let missing = expand(&mut value, |name| environment.get(name).cloned());
        let Parts {
            services,
            toolsets,
            templates,
            issues,
            notes,
        } = Parts::of(&value);
        let said = |issue: Issue| match labelled(file, &issue.path) {
            place if issue.path.is_empty() => format!("{place} {}", issue.message),
            place => format!("{place}: {}", issue.message),
        };
        self.problems.extend(missing.into_iter().map(said));
        self.problems.extend(issues.into_iter().map(said));
        self.notes.extend(notes.into_iter().map(said));
        let lists = [&mut self.services, &mut self.toolsets, &mut self.templates];
        for (list, entries) in lists.into_iter().zip([services, toolsets, templates]) {
            for Entry { path, value } in entries {
                list.values.push(value);
                list.origins.push((file.to_owned(), path));
            }
        }
    }
}

fn labelled(file: &str, path: &str) -> String {
    if path.is_empty() {
        file.to_owned()
    } else {
        format!("{file}: {path}")
    }
}

/// The files that are meant by a place, in a fixed order. A folder is one that `vaxel export --folder`
/// wrote, or holds files with documents.
fn files(place: &Path) -> anyhow::Result<Vec<(PathBuf, Kind)>> {
    if !place.is_dir() {
        return Ok(vec![(place.to_owned(), Kind::Document)]);
    }
    let active = place.join("active");
    let mut found = Vec::new();
    if active.is_dir() {
        for (folder, kind) in [
            (active, Kind::Document),
            (place.join("templates"), Kind::Template),
            (place.join("sets"), Kind::Document),
        ] {
            if folder.is_dir() {
                let all = listed(&folder, &["json"])?.into_iter();
                found.extend(all.map(|file| (file, kind)));
            }
        }
        found.retain(|(file, _)| !file.ends_with("index.json"));
    } else {
        let all = listed(place, &["json", "yaml", "yml"])?.into_iter();
        found.extend(all.map(|file| (file, Kind::Document)));
    }
    Ok(found)
}

fn listed(folder: &Path, kinds: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("{} cannot be read", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if path.is_file() && kind.is_some_and(|kind| kinds.contains(&kind)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The documents of a text; what is no document is a problem with line and column.
fn parse(text: &str, kind: Option<&str>) -> Vec<Result<Value, String>> {
    if kind == Some("toml") {
        let table = text
            .parse::<toml::Table>()
            .map_err(|error| error.to_string());
        let value =
            table.and_then(|table| serde_json::to_value(table).map_err(|error| error.to_string()));
        return vec![value];
    }
    let looks_like_json = text.trim_start().starts_with(['{', '[', '/']);
    if kind == Some("json") || looks_like_json {
        let read = jsonc::parse(text).map_err(|error| error.to_string());
        if kind == Some("json") || read.is_ok() {
            return vec![read];
        }
    }
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read::<_, Value>(&mut bytes);
    documents
        .map(|document| document.map_err(|error| unreadable(&error)))
        .collect()
}

fn unreadable(error: &serde_saphyr::Error) -> String {
    let said = error.without_snippet().to_string();
    let first = said.lines().next().unwrap_or_default();
    match error.location() {
        Some(at) if !first.contains("line") => {
            format!("line {}, column {}: {first}", at.line(), at.column())
        }
        _ => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[(&str, &str)]) -> Documents {
        let mut all = Documents::default();
        let environment = BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]);
        for (file, text) in texts {
            all.add((file, Kind::Document), text, &environment);
        }
        all
    }

    #[test]
    fn documents_of_many_files_become_one_and_keep_their_places() {
        let all = read(&[
            (
                "a.yaml",
                "# nothing\n---\nname: a\nspec: {source: {builtin: demo}}\n---\n- name: b\n",
            ),
            (
                "c.json",
                r#"{"vaxel": 1, "services": [{"name": "c"}, {"name": "${HOME}"}], "toolsets": [{"name": "s"}] // x
            }"#,
            ),
            ("d.toml", "[mcp_servers.d]\ncommand = \"d\"\n"),
        ]);
        assert_eq!(all.problems, [] as [&str; 0]);
        let bundle = all.bundle();
        let names: Vec<_> = bundle["services"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["a", "b", "c", "/h", "d"]);
        let problem = |path: &str, message: &str| {
            all.place(&FieldProblem {
                path: path.to_owned(),
                message: message.to_owned(),
            })
        };
        assert_eq!(
            problem("services[0].spec.x", "is wrong"),
            "a.yaml, document 1: spec.x: is wrong"
        );
        assert_eq!(
            problem("services[1]", "is wrong"),
            "a.yaml, document 2: [0]: is wrong"
        );
        assert_eq!(
            problem("services[3].name", "stands at services[2] as well"),
            "c.json: services[1].name: stands at c.json: services[0] as well"
        );
        assert_eq!(
            problem("toolsets[0]", "is wrong"),
            "c.json: toolsets[0]: is wrong"
        );
        assert_eq!(problem("", "is wrong"), "is wrong");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_file_line_and_column() {
        let all = read(&[
            ("a.yaml", "name: a\nspec:\n  source: {builtin: demo\n"),
            ("b.json", "{\"name\": \"b\",\n  \"spec\": }"),
            ("c.yaml", "name: c\ntags: [\"${NONE}\"]\n---\njust text\n"),
            ("d.yaml", "name: d\nname: e\n"),
        ]);
        let said = all.problems.join("\n");
        for part in [
            "a.yaml: ",
            "b.json: ",
            "c.yaml, document 1: tags[0]: `${NONE}` is not set",
            "c.yaml, document 2 is none of these",
            "d.yaml: ",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
        for file in ["a.yaml", "b.json", "d.yaml"] {
            let line = said.lines().find(|line| line.starts_with(file)).unwrap();
            assert!(line.contains("line ") && line.contains("column "), "{line}");
        }
    }
}
