//! Which service needs which: the order of starts, cycles, and what breaks when one stops.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
};

use crate::name::ServiceName;

/// Services and what each of them needs. A name that is needed and is no service is kept: it may come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependencies {
    needs: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
}

/// A service that another one's stop reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// Which.
    pub name: ServiceName,
    /// How it hangs on the one that stops: from itself down to that one, both included.
    pub path: Vec<ServiceName>,
}

impl FromIterator<(ServiceName, Vec<ServiceName>)> for Dependencies {
    fn from_iter<I: IntoIterator<Item = (ServiceName, Vec<ServiceName>)>>(services: I) -> Self {
        let needs = services
            .into_iter()
            .map(|(name, needs)| (name, needs.into_iter().collect()))
            .collect();
        Self { needs }
    }
}

impl Dependencies {
    /// Every service, with what it needs.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceName, &BTreeSet<ServiceName>)> {
        self.needs.iter()
    }

    /// The same of some services only; what they need stays.
    #[must_use]
    pub fn only(mut self, is_wanted: impl Fn(&ServiceName) -> bool) -> Self {
        self.needs.retain(|name, _| is_wanted(name));
        self
    }

    /// The circle that `name` would close by needing `needs`: it begins and ends with `name`. `None`
    /// when there is none.
    pub fn cycle(&self, name: &ServiceName, needs: &[ServiceName]) -> Option<Vec<ServiceName>> {
        let mut paths: VecDeque<Vec<ServiceName>> = needs
            .iter()
            .map(|need| vec![name.clone(), need.clone()])
            .collect();
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop_front() {
            let last = &path[path.len() - 1];
            if last == name {
                return Some(path);
            }
            if !seen.insert(last.clone()) {
                continue;
            }
            for next in self.needs.get(last).into_iter().flatten() {
                paths.push_back([&path[..], std::slice::from_ref(next)].concat());
            }
        }
        None
    }

    /// Every service after all that it needs. Members of a circle, which `submit` refuses, come last, by
    /// name.
    pub fn order(&self) -> Vec<&ServiceName> {
        let mut ordered: Vec<&ServiceName> = Vec::new();
        let mut left: BTreeMap<&ServiceName, usize> = BTreeMap::new();
        for (name, needs) in &self.needs {
            let known = needs.iter().filter(|need| self.needs.contains_key(*need));
            left.insert(name, known.count());
        }
        let users = self.users();
        let mut free: BTreeSet<&ServiceName> = BTreeSet::new();
        free.extend(
            left.iter()
                .filter(|(_, count)| **count == 0)
                .map(|(name, _)| *name),
        );
        while let Some(name) = free.pop_first() {
            left.remove(name);
            ordered.push(name);
            for user in users.get(name).into_iter().flatten() {
                if let Some(count) = left.get_mut(user) {
                    *count -= 1;
                    if *count == 0 {
                        free.insert(user);
                    }
                }
            }
        }
        ordered.extend(left.into_keys());
        ordered
    }

    /// What breaks when `name` stops: everything that needs it, directly or through others, the nearest
    /// first, each by its shortest path.
    pub fn affected_by(&self, name: &ServiceName) -> Vec<Affected> {
        let users = self.users();
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([name]);
        let mut next = VecDeque::from([vec![name.clone()]]);
        while let Some(path) = next.pop_front() {
            for user in users.get(&path[0]).into_iter().flatten() {
                if seen.insert(user) {
                    let path = [std::slice::from_ref(*user), &path[..]].concat();
                    next.push_back(path.clone());
                    let name = (*user).clone();
                    found.push(Affected { name, path });
                }
            }
        }
        found
    }

    /// The map as a Mermaid flowchart: an arrow from each service to what it needs.
    pub fn to_mermaid(&self) -> String {
        let mut chart = String::from("flowchart LR\n");
        let known: BTreeSet<&ServiceName> = self
            .needs
            .iter()
            .flat_map(|(name, needs)| std::iter::once(name).chain(needs))
            .collect();
        let numbers: BTreeMap<&ServiceName, usize> = known.into_iter().zip(0..).collect();
        // Writing to a string does not fail, and names need no escapes between quotes.
        for (name, number) in &numbers {
            let missing = if self.needs.contains_key(*name) {
                ""
            } else {
                ":::missing"
            };
            let _ = writeln!(chart, "    s{number}[\"{name}\"]{missing}");
        }
        for (name, needs) in &self.needs {
            for need in needs {
                let _ = writeln!(chart, "    s{} --> s{}", numbers[name], numbers[need]);
            }
        }
        chart.push_str("    classDef missing stroke-dasharray: 4 4\n");
        chart
    }

    fn users(&self) -> BTreeMap<&ServiceName, Vec<&ServiceName>> {
        let mut users: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
        for (name, needs) in &self.needs {
            for need in needs {
                users.entry(need).or_default().push(name);
            }
        }
        users
    }
}

#[cfg(test)]
mod tests;
