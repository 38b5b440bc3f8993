//! What people and programs read on the terminal: the only place that writes to it.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
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

/// Set when nobody reads standard output any more: `vaxel ls | head` closes it early, which is no
/// mistake of ours.
static IS_UNREAD: AtomicBool = AtomicBool::new(false);

/// Writes a line.
pub(crate) fn line(text: impl Display) {
    write_out(&format!("{text}\n"));
}

/// Writes text, ending it with a line end if it has none.
pub(crate) fn raw(text: &str) {
    write_out(text);
    if !text.ends_with('\n') {
        write_out("\n");
    }
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        IS_UNREAD.store(true, Ordering::Relaxed);
    }
}

/// Whether standard output can still be written: what goes on forever ends with it.
pub(crate) fn is_read() -> bool {
    !IS_UNREAD.load(Ordering::Relaxed)
}

/// Writes a line for people, beside the output.
pub(crate) fn note(text: impl Display) {
    let mut out = std::io::stderr().lock();
    // Nobody may be reading.
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
                // Without a place it is about the whole.
                let _ = match &*issue.path {
                    "" => writeln!(out, "  it {}", issue.message),
                    path => writeln!(out, "  {path}: {}", issue.message),
                };
            }
            if problem.status == 404 {
                NOT_FOUND
            } else {
                FAILED
            }
        }
        Some(vaxel_client::Error::Unreachable { .. } | vaxel_client::Error::NotRunning(_)) => {
            UNREACHABLE
        }
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
    table
}

/// Writes a table: columns two spaces apart, nothing around it.
pub(crate) fn rows(mut table: Table, style: Style) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if style.colour {
        table.enforce_styling();
    }
    line(table.trim_fmt());
}

/// A time for people, `3m ago`, where people read; as it was written where programs do.
pub(crate) fn when(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) if is_terminal() => format!("{} ago", ago(since(at))),
        _ => text.to_owned(),
    }
}

/// Milliseconds since then; 0 for what is still to come.
pub(crate) fn since(at: jiff::Timestamp) -> u64 {
    let millis = jiff::Timestamp::now().duration_since(at).as_millis();
    u64::try_from(millis).unwrap_or(0)
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
        "active" | "healthy" | "ok" | "pass" => cell.fg(Color::Green),
        "error" | "unhealthy" | "timeout" | "unavailable" | "tool_error" | "fail" => {
            cell.fg(Color::Red)
        }
        "deploying" | "updating" | "validating" | "starting" | "degraded" | "deactivating"
        | "warn" => cell.fg(Color::Yellow),
        _ => cell.fg(Color::DarkGrey),
    }
}

/// A line in a colour, where colours are wanted.
pub(crate) fn coloured(text: &str, colour: Color, style: Style) -> String {
    let code = match colour {
        Color::Green => 32,
        Color::Red => 31,
        Color::Yellow => 33,
        _ => 0,
    };
    if style.colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
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
