//! Passphrases: from a terminal, a file or the environment, and never from a flag, which other programs see.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, IsTerminal as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use vaxel_core::secret::Secret;

use crate::paths;

/// Holds a passphrase, for scripts.
const VARIABLE: &str = "VAXEL_BACKUP_PASSPHRASE";
/// What Ctrl-C is while the terminal gives on what is typed.
const INTERRUPT: u8 = 3;

/// A passphrase for something new: asked for twice.
pub(super) fn new(file: Option<&Path>) -> anyhow::Result<Secret<String>> {
    if let Some(given) = given(file)? {
        return Ok(given);
    }
    let first = ask("Passphrase of the backup: ")?;
    if first.expose() != ask("The same again: ")?.expose() {
        bail!("the two are not the same; nothing was written");
    }
    Ok(first)
}

/// The passphrase of something that is there.
pub(super) fn known(file: Option<&Path>) -> anyhow::Result<Secret<String>> {
    match given(file)? {
        Some(given) => Ok(given),
        None => ask("Passphrase of the backup: "),
    }
}

fn given(file: Option<&Path>) -> anyhow::Result<Option<Secret<String>>> {
    if let Some(file) = file {
        let text = fs::read_to_string(file);
        let text = Secret::new(text.with_context(|| format!("{} cannot be read", file.display()))?);
        let line = text.expose().lines().next().unwrap_or_default();
        return Ok(Some(Secret::new(line.to_owned())));
    }
    let variable = paths::environment().remove(VARIABLE);
    Ok(variable.map(Secret::new))
}

/// A password: asked for on the terminal, or the next line of the input where there is none.
pub(super) fn password(question: &str) -> anyhow::Result<Secret<String>> {
    if std::io::stdin().is_terminal() {
        return ask(question);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let line = Secret::new(line);
    let line = Secret::new(line.expose().trim_end_matches(['\r', '\n']).to_owned());
    if line.expose().is_empty() {
        bail!("the input ended where the password was to come");
    }
    Ok(line)
}

/// A new password: asked for twice on a terminal.
pub(super) fn new_password(question: &str) -> anyhow::Result<Secret<String>> {
    let first = password(question)?;
    if std::io::stdin().is_terminal() && first.expose() != ask("The same again: ")?.expose() {
        bail!("the two are not the same; nothing was changed");
    }
    Ok(first)
}

/// Asks on the terminal, where what is typed is not shown.
fn ask(question: &str) -> anyhow::Result<Secret<String>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let Some(mut terminal) = terminal.ok().filter(File::is_terminal) else {
        bail!("there is no terminal to ask for it at: set {VARIABLE}, or say --passphrase-file");
    };
    terminal.write_all(question.as_bytes())?;
    let mut line = Vec::new();
    {
        let _hidden = Hidden::new(&terminal)?;
        BufReader::new(&terminal).read_until(b'\n', &mut line)?;
    }
    terminal.write_all(b"\n")?;
    let line = Secret::new(line);
    if line.expose().contains(&INTERRUPT) {
        bail!("interrupted; nothing was done");
    }
    let text = String::from_utf8(line.expose().clone()).context("the passphrase is no text")?;
    let text = Secret::new(text);
    Ok(Secret::new(
        text.expose().trim_end_matches(['\r', '\n']).to_owned(),
    ))
}

/// As long as it is there, the terminal shows nothing. Nor does Ctrl-C end us then, which would leave it so.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
