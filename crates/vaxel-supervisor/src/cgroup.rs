//! Hard bounds by the kernel's own controllers, where they can be written (v1 and v2).
//!
//! They are a backstop: [`crate::watch`] kills a tree that is over its bounds with a clear reason, and
//! these make sure that it cannot outrun the watch. The `pids` controller counts threads, which a
//! person who writes `processes = 20` does not, so its bound is wider than the asked one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::Limits;

const MOUNT: &str = "/sys/fs/cgroup";
/// Threads that are allowed per allowed process.
const THREADS: u64 = 64;
/// The group into which this process moves when v2 asks for groups without members of their own.
const OWN_LEAF: &str = "vaxel-main";

/// Makes groups below the one this process is in.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// Absent: groups are not used.
    mount: Option<PathBuf>,
    next: AtomicU64,
}

/// The groups of one process tree; empty where there are none.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    dir: PathBuf,
    /// The `cgroup.procs` of where the shim came from.
    home: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Memory1,
    Pids1,
    Two,
}

impl Cgroups {
    pub(crate) fn system() -> Self {
        Self {
            mount: Some(MOUNT.into()),
            next: AtomicU64::new(0),
        }
    }

    pub(crate) const fn none() -> Self {
        Self {
            mount: None,
            next: AtomicU64::new(0),
        }
    }

    /// Groups with these bounds, as far as this machine lets us; the rest is left to the watch.
    pub(crate) fn create(&self, limits: Limits) -> Cgroup {
        let mut cgroup = Cgroup::default();
        let Some(mount) = self.mount.as_deref().filter(|_| limits.bounds_the_tree()) else {
            return cgroup;
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("vaxel-{}-{number}", process::id());
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for version in wanted(limits) {
            let home = home(mount, &membership, version);
            if let Some(home) = home.as_deref().filter(|_| number == 0) {
                clear(home);
            }
            let made = home
                .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
                .and_then(|home| Group::create(&home, &name, version, limits));
            match made {
                Ok(group) => cgroup.groups.push(group),
                Err(error) => {
                    tracing::debug!(?version, %error, "No control group for a process; it is watched instead");
                }
            }
        }
        cgroup
    }
}

fn wanted(limits: Limits) -> Vec<Version> {
    let mut versions = vec![Version::Two];
    versions.extend(limits.memory_bytes.map(|_| Version::Memory1));
    versions.extend(limits.processes.map(|_| Version::Pids1));
    versions
}

/// The directory of the group this process is in.
fn home(mount: &Path, membership: &str, version: Version) -> Option<PathBuf> {
    let controller = match version {
        Version::Memory1 => "memory",
        Version::Pids1 => "pids",
        Version::Two => "",
    };
    let path = membership.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let path = parts.next()?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })?;
    let root = if version == Version::Two {
        mount.to_owned()
    } else {
        mount.join(controller)
    };
    let home = root.join(path.trim_start_matches('/'));
    // In a container without a namespace of its own the mount shows our group as the root.
    Some(if home.is_dir() { home } else { root })
}

/// Removes the groups of processes that ended without doing so.
fn clear(home: &Path) {
    let left = |name: &str| {
        let (pid, _) = name.strip_prefix("vaxel-")?.split_once('-')?;
        pid.parse::<u32>()
            .ok()
            .filter(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(left).is_some() {
            // One that still has members stays; the next start tries again.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Group {
    fn create(home: &Path, name: &str, version: Version, limits: Limits) -> io::Result<Self> {
        let home = if version == Version::Two {
            make_room(home, limits)?
        } else {
            home.to_owned()
        };
        let dir = match (version, home.file_name()) {
            (Version::Two, Some(leaf)) if leaf == OWN_LEAF => home.with_file_name(name),
            _ => home.join(name),
        };
        fs::create_dir(&dir)?;
        let group = Self {
            dir,
            home: home.join("cgroup.procs"),
            version,
        };
        if let Err(error) = group.bound(limits) {
            group.remove();
            return Err(error);
        }
        Ok(group)
    }

    fn bound(&self, limits: Limits) -> io::Result<()> {
        let write =
            |file: &str, value: u64| write_existing(&self.dir.join(file), &value.to_string());
        if let Some(bytes) = limits.memory_bytes {
            match self.version {
                Version::Memory1 => write("memory.limit_in_bytes", bytes)?,
                Version::Two => {
                    write("memory.max", bytes)?;
                    write("memory.oom.group", 1)?;
                }
                Version::Pids1 => {}
            }
        }
        if let Some(processes) = limits.processes
            && self.version != Version::Memory1
        {
            write("pids.max", u64::from(processes).saturating_mul(THREADS))?;
        }
        Ok(())
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::debug!(dir = %self.dir.display(), %error, "A control group was not removed");
        }
    }
}

/// v2: lets the groups below `home` use the controllers. They can only when no process is in `home`
/// itself, so this process moves into a leaf when it is alone there (a service with `Delegate=yes`).
fn make_room(home: &Path, limits: Limits) -> io::Result<PathBuf> {
    if home.file_name().is_some_and(|name| name == OWN_LEAF) {
        return Ok(home.to_owned());
    }
    let mut controllers = Vec::new();
    controllers.extend(limits.memory_bytes.map(|_| "memory"));
    controllers.extend(limits.processes.map(|_| "pids"));
    let has = |file: &str| -> io::Result<bool> {
        let text = fs::read_to_string(home.join(file))?;
        Ok(controllers
            .iter()
            .all(|wanted| text.split_whitespace().any(|name| name == *wanted)))
    };
    if !has("cgroup.controllers")? {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "controllers are not delegated",
        ));
    }
    if has("cgroup.subtree_control")? {
        return Ok(home.to_owned());
    }
    let members = fs::read_to_string(home.join("cgroup.procs"))?;
    let pid = process::id().to_string();
    if members.split_whitespace().any(|member| member != pid) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "other processes live in the same group",
        ));
    }
    let leaf = home.join(OWN_LEAF);
    if !leaf.is_dir() {
        fs::create_dir(&leaf)?;
    }
    write_existing(&leaf.join("cgroup.procs"), &pid)?;
    let enable: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    write_existing(&home.join("cgroup.subtree_control"), &enable.join(" "))?;
    Ok(leaf)
}

impl Cgroup {
    /// Where the shim writes its pid before it starts the child.
    pub(crate) fn join(&self) -> Vec<PathBuf> {
        self.groups
            .iter()
            .map(|group| group.dir.join("cgroup.procs"))
            .collect()
    }

    /// Where the shim writes its pid afterwards.
    pub(crate) fn leave(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|group| group.home.clone()).collect()
    }

    /// Whether the kernel killed a process of this group because of its memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.groups.iter().any(|group| {
            let file = match group.version {
                Version::Memory1 => "memory.oom_control",
                Version::Two => "memory.events",
                Version::Pids1 => return false,
            };
            let text = fs::read_to_string(group.dir.join(file)).unwrap_or_default();
            text.lines().any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count.trim() != "0")
            })
        })
    }

    /// Removes the groups; their processes are gone.
    pub(crate) fn remove(&self) {
        for group in &self.groups {
            group.remove();
        }
    }
}

/// Control files exist or the feature does not: never create one.
fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_every_layout() {
        let mixed = "9:name=systemd:/\n4:memory:/a/b\n3:cpu,cpuacct:/\n0::/user.slice\n";
        let mount = Path::new("/nowhere");
        // Nothing exists below the mount, so the root of the hierarchy stands in.
        assert_eq!(
            home(mount, mixed, Version::Memory1),
            Some("/nowhere/memory".into())
        );
        assert_eq!(home(mount, mixed, Version::Pids1), None);
        assert_eq!(home(mount, mixed, Version::Two), Some("/nowhere".into()));
        assert_eq!(home(mount, "4:memory:/a\n", Version::Two), None);
    }

    #[test]
    fn nothing_is_made_for_a_tree_without_bounds() {
        assert!(
            Cgroups::system()
                .create(Limits::default())
                .groups
                .is_empty()
        );
    }
}
