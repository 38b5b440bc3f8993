//! `vaxel service edit`, `vaxel template edit`, `vaxel set edit`: a resource as YAML in the editor of whoever asks.
//!
//! What was typed is never lost: a text that is not accepted comes back with the reasons, and when
//! nothing more can be done it stays in its file.

use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf, process::Command};

use anyhow::{Context as _, bail};
use serde_json::Value;
use vaxel_client::Client;

use super::{Why, service::yaml};
use crate::{output, paths, wire::write_private};

const HELP: &str = "\
# Change what you like, save and leave the editor; an empty file changes nothing.
";

/// What is edited.
pub(super) struct Subject {
    /// `service`, `template`, `set`
    pub(super) what: &'static str,
    /// One more line of help.
    pub(super) hint: &'static str,
    /// Where the management API has it.
    pub(super) path: String,
    /// The parts of it that a person can change.
    pub(super) editable: fn(&Value) -> Value,
    /// Why it is changed.
    pub(super) why: Why,
}

pub(super) async fn run(name: &str, subject: &Subject, client: &Client) -> anyhow::Result<()> {
    let (path, editable) = (&*subject.path, subject.editable);
    let found: Value = client.get(path).await?;
    let before = format!("{HELP}# {}\n{}", subject.hint, yaml(&editable(&found))?);
    let draft = Draft::new(name)?;
    let mut version = found["version"].as_u64();
    let mut text = before.clone();
    loop {
        text = draft.edit(&text)?;
        if content(&text).is_empty() || text == before {
            draft.remove();
            output::note("Nothing was changed");
            return Ok(());
        }
        let problem = match submit(subject, &text, version, client).await {
            Ok(()) => {
                draft.remove();
                output::note(format!("Changed {name}"));
                return Ok(());
            }
            Err(Refused::Text(problem)) => problem,
            Err(Refused::Stale) => {
                let current: Value = client.get(path).await?;
                version = current["version"].as_u64();
                let theirs = yaml(&editable(&current))?;
                format!(
                    "somebody else changed the {} meanwhile; saving again replaces what is \
                     there now:\n{theirs}",
                    subject.what
                )
            }
            Err(Refused::Failed(error)) => {
                let kept = format!(
                    "{name} was not changed; your text: {}",
                    draft.file.display()
                );
                return Err(anyhow::Error::new(error).context(kept));
            }
        };
        if !output::can_show_progress() {
            let kept = draft.file.display();
            bail!("{name} was not changed: {problem}; your text: {kept}");
        }
        let problem = problem.trim().replace('\n', "\n# ");
        text = format!("# Not accepted:\n# {problem}\n{}\n", content(&text));
    }
}

/// Why a text was not accepted.
enum Refused {
    /// Something is wrong with it.
    Text(String),
    /// It is not what it was when the person began.
    Stale,
    /// Nothing that another text would mend.
    Failed(vaxel_client::Error),
}

async fn submit(
    subject: &Subject,
    text: &str,
    version: Option<u64>,
    client: &Client,
) -> Result<(), Refused> {
    let draft: Value = serde_saphyr::from_str(text)
        .map_err(|error| Refused::Text(format!("it is no YAML: {error}")))?;
    let path = subject.why.on(subject.path.clone());
    let changed = client.put::<Value>(&path, &draft, version).await;
    match changed {
        Ok(_) => Ok(()),
        Err(vaxel_client::Error::Problem(problem)) if problem.status == 412 => Err(Refused::Stale),
        Err(vaxel_client::Error::Problem(problem)) if matches!(problem.status, 400 | 409 | 422) => {
            let lines = problem.errors.iter();
            let lines = lines.map(|one| format!("\n  {}: {}", one.path, one.message));
            let lines = lines.collect::<Vec<_>>().concat();
            Err(Refused::Text(format!("{}{lines}", problem.detail)))
        }
        Err(error) => Err(Refused::Failed(error)),
    }
}

/// The text without our comments.
fn content(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join("\n").trim().to_owned()
}

/// The file that the editor gets, in a folder of its own that only this user can read.
struct Draft {
    folder: PathBuf,
    file: PathBuf,
}

impl Draft {
    fn new(name: &str) -> anyhow::Result<Self> {
        let at = jiff::Timestamp::now().as_nanosecond();
        let folder = std::env::temp_dir().join(format!("vaxel-{}-{at}", std::process::id()));
        // Fails when somebody else made it first.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let file = folder.join(format!("{}.yaml", vaxel_client::segment(name)));
        Ok(Self { folder, file })
    }

    /// Lets the person change the text.
    fn edit(&self, text: &str) -> anyhow::Result<String> {
        write_private(&self.file, text)?;
        let env = paths::environment();
        let set = |name: &str| env.get(name).filter(|editor| !editor.trim().is_empty());
        let editor = set("VISUAL").or_else(|| set("EDITOR"));
        let editor = editor.map_or("vi", String::as_str);
        let mut words = editor.split_whitespace();
        let exit = Command::new(words.next().unwrap_or("vi"))
            .args(words)
            .arg(&self.file)
            .status()
            .with_context(|| format!("the editor `{editor}` cannot be started; set $EDITOR"))?;
        if !exit.success() {
            // How a person says in an editor that they want none of it.
            self.remove();
            bail!("the editor ended with {exit}; nothing was changed");
        }
        fs::read_to_string(&self.file).context("the edited file cannot be read")
    }

    fn remove(&self) {
        // What stays holds no secret in clear: sealed values are references.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_person_wrote_counts() {
        assert_eq!(content(HELP), "");
        let text = "# Not accepted:\n# x\na: 1\n\nb: '# 2'\n";
        assert_eq!(content(text), "a: 1\n\nb: '# 2'");
    }
}
