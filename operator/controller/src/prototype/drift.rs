//! When a universe is asked again for what it changed itself. It tells nobody by itself, and an apply that changes nothing
//! writes nothing.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use batos_crds::DriftPolicy;
use kube::runtime::controller::Action;
use tokio::time::Instant;

/// When each Prototype is looked at next, by uid.
pub struct Rounds {
    every: Duration,
    next: Mutex<HashMap<String, Instant>>,
}

impl Rounds {
    pub fn new(every: Duration) -> Self {
        Self { every, next: Mutex::default() }
    }

    /// Whether it is time. A Prototype that is seen for the first time waits for a part of the pause, so that not all
    /// come at once.
    pub fn is_due(&self, uid: &str, policy: DriftPolicy) -> bool {
        let Ok(mut next) = self.next.lock() else { return false };
        let part = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        let at = next.entry(uid.to_owned()).or_insert_with(|| Instant::now() + self.every.mul_f64(0.5 + part / 2.0));
        policy != DriftPolicy::Adopt && *at <= Instant::now()
    }

    pub fn looked(&self, uid: &str) {
        if let Ok(mut next) = self.next.lock() {
            next.insert(uid.to_owned(), Instant::now() + self.every);
        }
    }

    pub fn forget(&self, uid: &str) {
        if let Ok(mut next) = self.next.lock() {
            next.remove(uid);
        }
    }

    /// Wakes the reconciler when the next look is due.
    pub fn next(&self, uid: &str, policy: DriftPolicy) -> Action {
        let at = self.next.lock().ok().and_then(|next| next.get(uid).copied());
        match at.filter(|_| policy != DriftPolicy::Adopt) {
            Some(at) => Action::requeue(at.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))),
            None => Action::await_change(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_round_comes_after_the_pause_and_never_for_what_is_adopted() {
        let rounds = Rounds::new(Duration::from_secs(60));
        assert!(!rounds.is_due("a", DriftPolicy::Report), "seen for the first time");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(rounds.is_due("a", DriftPolicy::Report));
        assert!(!rounds.is_due("a", DriftPolicy::Adopt));
        rounds.looked("a");
        assert!(!rounds.is_due("a", DriftPolicy::Enforce));
        assert_eq!(rounds.next("a", DriftPolicy::Report), Action::requeue(Duration::from_secs(60)));
        assert_eq!(rounds.next("a", DriftPolicy::Adopt), Action::await_change());
    }
}
