//! Who lives below whom, and what they use: one walk over `/proc`.
//!
//! A parent link is all that is trusted. Process groups and sessions are left by whoever wants to
//! (`setsid`), but as every tree has a reaper at its root, its members always lead back to it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use procfs::process::Process;

use crate::Usage;

/// The processes of the machine at one moment.
#[derive(Debug, Default)]
pub(crate) struct Census {
    children: HashMap<u32, Vec<u32>>,
    entries: HashMap<u32, Entry>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) group: i32,
    pub(crate) zombie: bool,
    own_ticks: u64,
    waited_ticks: u64,
}

impl Census {
    /// Walks `/proc`; processes that end meanwhile are left out.
    pub(crate) fn take() -> Self {
        let mut census = Self::default();
        let Ok(all) = procfs::process::all_processes() else {
            return census;
        };
        for stat in all.filter_map(|process| process.ok()?.stat().ok()) {
            let (Ok(pid), Ok(parent)) = (u32::try_from(stat.pid), u32::try_from(stat.ppid)) else {
                continue;
            };
            let waited = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
            census.children.entry(parent).or_default().push(pid);
            census.entries.insert(
                pid,
                Entry {
                    group: stat.pgrp,
                    zombie: matches!(stat.state, 'Z' | 'X'),
                    own_ticks: stat.utime + stat.stime,
                    waited_ticks: waited,
                },
            );
        }
        census
    }

    pub(crate) fn get(&self, pid: u32) -> Option<Entry> {
        self.entries.get(&pid).copied()
    }

    pub(crate) fn children(&self, pid: u32) -> &[u32] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// Everything below `root`, without it; parents before their children.
    pub(crate) fn descendants(&self, root: u32) -> Vec<u32> {
        let mut found: Vec<u32> = self.children(root).to_vec();
        let mut seen: HashSet<u32> = found.iter().copied().collect();
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            // A pid that was used twice during the walk must not make a circle.
            found.extend(
                self.children(pid)
                    .iter()
                    .copied()
                    .filter(|child| seen.insert(*child)),
            );
            next += 1;
        }
        found
    }

    /// What the tree below `shim` uses. The shim's own share is left out, except for the CPU time
    /// of the orphans that it waited for.
    pub(crate) fn usage(&self, shim: u32) -> Usage {
        let mut usage = Usage::default();
        let mut ticks = self.get(shim).map_or(0, |entry| entry.waited_ticks);
        let page = procfs::page_size();
        let mut shared_max = 0;
        for pid in self.descendants(shim) {
            let Some(entry) = self.get(pid) else { continue };
            ticks += entry.own_ticks + entry.waited_ticks;
            if entry.zombie {
                continue;
            }
            usage.processes += 1;
            let Some(memory) = i32::try_from(pid)
                .ok()
                .and_then(|pid| Process::new(pid).ok()?.statm().ok())
            else {
                continue;
            };
            usage.memory_bytes += memory.resident.saturating_sub(memory.shared) * page;
            shared_max = shared_max.max(memory.shared * page);
        }
        usage.memory_bytes += shared_max;
        let per_second = procfs::ticks_per_second().max(1);
        usage.cpu = Duration::from_millis(ticks * 1000 / per_second);
        usage
    }
}
