//! Finds the program of an order, and says in a sentence why it cannot be run.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::wire::Refusal;

const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The file to run for `program`, which is a path or a name to look up in `path`.
pub(super) fn find(program: &str, path: Option<&str>, cwd: &Path) -> Result<PathBuf, Refusal> {
    if program.is_empty() {
        return Err(Refusal::BadOrder {
            why: "no program was named".to_owned(),
        });
    }
    if program.contains('/') {
        let file = cwd.join(program);
        return match problem(&file) {
            None => Ok(file),
            Some(Problem::Missing) => Err(Refusal::NotFound {
                place: "this file system".to_owned(),
            }),
            Some(Problem::Other(why)) => Err(Refusal::Denied { why }),
        };
    }
    let path = path.unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for dir in path.split(':') {
        let file = cwd.join(dir).join(program);
        match problem(&file) {
            None => return Ok(file),
            Some(Problem::Missing) => {}
            Some(Problem::Other(why)) => denied = denied.or(Some(why)),
        }
    }
    Err(match denied {
        Some(why) => Refusal::Denied { why },
        None => Refusal::NotFound {
            place: format!("PATH ({path})"),
        },
    })
}

enum Problem {
    Missing,
    Other(String),
}

fn problem(file: &Path) -> Option<Problem> {
    match file.metadata() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Problem::Other(
            format!("{} cannot be looked at: {error}", file.display()),
        )),
        Err(_) => Some(Problem::Missing),
        Ok(found) if found.is_dir() => {
            Some(Problem::Other(format!("{} is a directory", file.display())))
        }
        Ok(_) if access(file, Access::EXEC_OK).is_err() => Some(Problem::Other(format!(
            "{} is not executable for this user (chmod +x?)",
            file.display()
        ))),
        Ok(_) => None,
    }
}

/// Why running `file`, which was found, failed.
pub(super) fn refusal(file: &Path, error: &io::Error) -> Refusal {
    let shown = file.display();
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => match interpreter(file) {
            Some(line) => {
                format!("the interpreter in the first line of {shown} (`{line}`) does not exist")
            }
            None => format!("{shown} needs a loader or library that does not exist"),
        },
        Some(Errno::NOEXEC) => {
            format!("{shown} is no program for this machine, and no script with a `#!` line")
        }
        Some(Errno::ACCESS | Errno::PERM) => format!("{shown} may not be executed here"),
        Some(Errno::TOOBIG) => {
            return Refusal::BadOrder {
                why: "its arguments and environment are longer than the system allows".to_owned(),
            };
        }
        None if error.kind() == io::ErrorKind::InvalidInput => {
            return Refusal::BadOrder {
                why: "an argument or variable holds a NUL character".to_owned(),
            };
        }
        _ => {
            let doing = format!("running {shown}");
            return Refusal::Failed {
                doing,
                errno: error.raw_os_error(),
                why: error.to_string(),
            };
        }
    };
    Refusal::Denied { why }
}

fn interpreter(file: &Path) -> Option<String> {
    let mut line = Vec::new();
    BufReader::new(File::open(file).ok()?.take(256))
        .read_until(b'\n', &mut line)
        .ok()?;
    let line = String::from_utf8_lossy(&line);
    Some(line.strip_prefix("#!")?.trim().to_owned())
}
