//! What people and programs read on the terminal: the only place that writes to it.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    process::ExitCode,
};

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;

/// Failed.
pub(crate) const FAILED: u8 = 1;
/// No Vaxel answers.
pub(crate) const UNREACHABLE: u8 = 3;
/// There is no such thing.
pub(crate) const NOT_FOUND: u8 = 4;
/// The tool says that it failed.
pub(crate) const TOOL_ERROR: u8 = 5;

/// How output looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// JSON instead of tables.
    pub(crate) json: bool,
    /// Colours.
    pub(crate) colour: bool,
}

/// Writes a line. A reader that has gone away is no mistake of ours.
pub(crate) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    // `vaxel ls | head` closes the pipe early.
    let _ = writeln!(out, "{text}");
}

/// Writes text as it is.
pub(crate) fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    // As above.
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Writes a line for people, beside the output.
pub(crate) fn note(text: impl Display) {
    let mut out = std::io::stderr().lock();
    // As above.
    let _ = writeln!(out, "{text}");
}

/// Writes `value` as JSON.
pub(crate) fn json(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Says what went wrong; the code tells scripts.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let mut out = std::io::stderr().lock();
    // Nobody may be reading.
    let _ = write!(out, "error: {error}");
    for cause in error.chain().skip(1) {
        let _ = write!(out, "\n  because: {cause}");
    }
    let _ = writeln!(out);
    let code = match error.downcast_ref::<vaxel_client::Error>() {
        Some(vaxel_client::Error::Problem(problem)) => {
            for issue in &problem.errors {
                let _ = writeln!(out, "  {}: {}", issue.path, issue.message);
            }
            if problem.status == 404 {
                NOT_FOUND
            } else {
                FAILED
            }
        }
        Some(vaxel_client::Error::Unreachable { .. }) => UNREACHABLE,
        _ => FAILED,
    };
    ExitCode::from(code)
}

/// Whether standard error is a terminal that progress can be shown on.
pub(crate) fn can_show_progress() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A table with these column heads.
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads.iter().map(Cell::new).collect::<Vec<_>>());
    if !is_terminal() {
        table.set_width(10_000);
    }
    table
}

/// A number, on the right.
pub(crate) fn number(value: impl Display) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// A state or health in its colour.
pub(crate) fn state(text: &str, style: Style) -> Cell {
    let cell = Cell::new(text);
    if !style.colour {
        return cell;
    }
    match text.to_ascii_lowercase().as_str() {
        "active" | "healthy" | "ok" => cell.fg(Color::Green),
        "error" | "unhealthy" | "timeout" | "unavailable" | "tool_error" => cell.fg(Color::Red),
        "deploying" | "updating" | "validating" | "starting" | "degraded" | "deactivating" => {
            cell.fg(Color::Yellow)
        }
        _ => cell.fg(Color::DarkGrey),
    }
}

/// A duration as people say it: `5s`, `3m`, `2h`, `4d`.
pub(crate) fn ago(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m", seconds / 60),
        3_600..=86_399 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
