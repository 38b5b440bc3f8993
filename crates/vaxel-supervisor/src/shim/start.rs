//! Starts the child of a shim: directory, program, limits, groups, sandbox, and then the program.

use std::{
    fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
};

use rustix::{
    fs::{Access, access},
    process::{Pid, Resource, Rlimit, getrlimit, setrlimit},
};

use super::program;
use crate::{
    SandboxReport,
    orphans::to_pid,
    sandbox::{self, Sandbox},
    wire::{Refusal, StartOrder},
};

/// Fewer open files than this leave no room for the runtime of any language.
const OPEN_FILES_MIN: u64 = 64;

/// Starts the program of `order`; its secrets leave this process's own variables with it.
pub(super) fn start(mut order: StartOrder) -> Result<(Pid, SandboxReport), Refusal> {
    let home = order.env.get("HOME").map(String::as_str);
    let cwd = enter(order.cwd.as_deref(), home)?;
    let file = program::find(
        &order.program,
        order.env.get("PATH").map(String::as_str),
        &cwd,
    )?;
    if let Some(limit) = order.open_files {
        limit_open_files(limit)?;
    }
    let mut notes: Vec<String> = join_groups(&order.join).into_iter().collect();
    let sandbox = sandbox::begin(&order.hiding, &file, &cwd, &mut order.env);
    // Landlock binds the calling thread and what it starts: this thread, not the whole shim, so
    // that nothing in the sandbox may trace the shim.
    let spawner = thread::Builder::new().name("start".to_owned());
    let spawned = spawner
        .spawn(move || {
            spawn(&order, &file, &cwd, sandbox)
                .map(|(pid, report)| (pid, report, order.leave.clone()))
        })
        .map_err(|error| failed("starting a thread", &error))?;
    let (pid, mut report, leave) = spawned.join().unwrap_or_else(|_| {
        Err(failed(
            "starting the program",
            &io::Error::other("a thread panicked"),
        ))
    })?;
    notes.extend(join_groups(&leave));
    report.notes.append(&mut notes);
    Ok((pid, report))
}

fn spawn(
    order: &StartOrder,
    file: &Path,
    cwd: &Path,
    sandbox: Sandbox,
) -> Result<(Pid, SandboxReport), Refusal> {
    let report = sandbox.enter();
    let mut command = Command::new(file);
    command
        .args(&order.args)
        .env_clear()
        .envs(&order.env)
        .current_dir(cwd)
        .process_group(0);
    if !order.program.contains('/') {
        // As a shell does: programs that are several in one look at the name they were called by.
        command.arg0(&order.program);
    }
    let child = command
        .spawn()
        .map_err(|error| program::refusal(file, &error))?;
    let pid = to_pid(child.id())
        .ok_or_else(|| failed("starting the program", &io::Error::other("it has no pid")))?;
    Ok((pid, report))
}

/// Why an order cannot be started, as far as can be seen from outside: every problem, not the first.
pub(crate) fn problems(order: &StartOrder) -> Vec<Refusal> {
    let home = order.env.get("HOME").map(String::as_str);
    let (cwd, bad_cwd) = match enter(order.cwd.as_deref(), home) {
        Ok(cwd) => (cwd, None),
        Err(refusal) => (PathBuf::from("/"), Some(refusal)),
    };
    // A path below a directory that is not there is not there either.
    let hidden =
        bad_cwd.is_some() && order.program.contains('/') && !order.program.starts_with('/');
    let path = order.env.get("PATH").map(String::as_str);
    let bad_program = program::find(&order.program, path, &cwd).err();
    let bad_program = bad_program.filter(|_| !hidden);
    bad_program.into_iter().chain(bad_cwd).collect()
}

/// The working directory, checked and without symbolic links.
fn enter(cwd: Option<&Path>, home: Option<&str>) -> Result<PathBuf, Refusal> {
    let Some(cwd) = cwd else {
        let home = home.map(Path::new).filter(|home| home.is_absolute());
        let home = home.and_then(|home| check(home).ok());
        return Ok(home.unwrap_or_else(|| PathBuf::from("/")));
    };
    check(cwd).map_err(|why| Refusal::BadCwd {
        cwd: cwd.to_owned(),
        why,
    })
}

fn check(dir: &Path) -> Result<PathBuf, String> {
    if !dir.is_absolute() {
        return Err("it is no absolute path".to_owned());
    }
    match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("it does not exist".to_owned())
        }
        Err(error) => Err(error.to_string()),
        Ok(found) if !found.is_dir() => Err("it is not a directory".to_owned()),
        Ok(_) if access(dir, Access::EXEC_OK).is_err() => {
            Err("this user may not enter it".to_owned())
        }
        Ok(_) => fs::canonicalize(dir).map_err(|error| error.to_string()),
    }
}

/// For this process and all below it, so it cannot be raced. What the system allows is not exceeded.
fn limit_open_files(limit: u64) -> Result<(), Refusal> {
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let limit = Some(limit.max(OPEN_FILES_MIN).min(allowed));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .map_err(|error| failed("limiting open files", &error.into()))
}

/// Moves this process into control groups, each named by its `cgroup.procs`. The watch keeps the
/// bounds where that fails.
fn join_groups(files: &[PathBuf]) -> Option<String> {
    let pid = process::id().to_string();
    let mut note = None;
    for file in files {
        let joined = fs::OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut file| file.write_all(pid.as_bytes()));
        if let Err(error) = joined {
            note = Some(format!(
                "The control group {} was not used: {error}.",
                file.display()
            ));
        }
    }
    note
}

fn failed(doing: &str, error: &io::Error) -> Refusal {
    Refusal::Failed {
        doing: doing.to_owned(),
        errno: error.raw_os_error(),
        why: error.to_string(),
    }
}
