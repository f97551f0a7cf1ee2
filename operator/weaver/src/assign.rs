//! Homes for adapters when nothing is known of their load.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// A pod that takes adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    /// Adapters that fit at once.
    pub slots: usize,
    /// Adapters that it has now.
    pub holds: BTreeSet<String>,
}

/// One step at one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Load { pod: String, adapter: String },
    Unload { pod: String, adapter: String },
}

/// Where adapters belong, and how to get there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// In this order no pod ever has more than its slots, unless it had already.
    pub actions: Vec<Action>,
    /// The pod of each adapter.
    pub homes: BTreeMap<String, String>,
    /// Adapters for which no slot is free.
    pub waiting: BTreeSet<String>,
}

/// Gives each wanted adapter one pod. What is placed stays where it is; a new one goes to the pod with the most free
/// slots. The same pods and adapters give the same placement, in whatever order they are told.
pub fn place(pods: &[Pod], wanted: &BTreeSet<String>) -> Placement {
    let pods: BTreeMap<&str, &Pod> = pods.iter().map(|pod| (pod.name.as_str(), pod)).collect();
    let mut placement = Placement::default();
    let mut free: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, pod) in &pods {
        let mut left = pod.slots;
        for adapter in &pod.holds {
            if wanted.contains(adapter) && !placement.homes.contains_key(adapter) && left > 0 {
                left -= 1;
                placement.homes.insert(adapter.clone(), (*name).to_owned());
            } else {
                placement.actions.push(Action::Unload { pod: (*name).to_owned(), adapter: adapter.clone() });
            }
        }
        free.insert(*name, left);
    }
    for adapter in wanted {
        if placement.homes.contains_key(adapter) {
            continue;
        }
        // `rev`: of equals, `max_by_key` takes the last, which is then the first by name.
        match free.iter_mut().rev().filter(|(_, left)| **left > 0).max_by_key(|(_, left)| **left) {
            Some((name, left)) => {
                *left -= 1;
                placement.homes.insert(adapter.clone(), (*name).to_owned());
                placement.actions.push(Action::Load { pod: (*name).to_owned(), adapter: adapter.clone() });
            }
            None => {
                placement.waiting.insert(adapter.clone());
            }
        }
    }
    placement
}
