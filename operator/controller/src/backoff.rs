//! Pauses between attempts, longer from failure to failure of one object.

use std::{collections::HashMap, sync::Mutex, time::Duration};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(120);

/// Failures in a row, by object.
#[derive(Default)]
pub struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// The pause after one more failure of `object`: doubled each time, a quarter of it random.
    pub fn failed(&self, object: &str) -> Duration {
        let Ok(mut failures) = self.0.lock() else { return LONGEST };
        let count = failures.entry(object.to_owned()).or_insert(0);
        let pause = pause(*count, getrandom::u32().unwrap_or_default());
        *count = count.saturating_add(1);
        pause
    }

    pub fn succeeded(&self, object: &str) {
        if let Ok(mut failures) = self.0.lock() {
            failures.remove(object);
        }
    }
}

fn pause(failures: u32, random: u32) -> Duration {
    let full = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
    let jitter = f64::from(random) / f64::from(u32::MAX);
    full.mul_f64(0.75 + jitter / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew_after_success() {
        assert_eq!(pause(0, u32::MAX), FIRST);
        assert_eq!(pause(0, 0), FIRST.mul_f64(0.75));
        assert_eq!(pause(3, u32::MAX), FIRST * 8);
        assert_eq!(pause(u32::MAX, u32::MAX), LONGEST);
        let backoff = Backoff::default();
        for _ in 0..9 {
            backoff.failed("a");
        }
        assert!(backoff.failed("a") > FIRST * 60);
        backoff.succeeded("a");
        assert!(backoff.failed("a") <= FIRST);
    }
}
