//! How long to wait before a request is tried again.

use std::time::Duration;

/// The first wait is at most this, each next one at most twice the one before.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(20);

/// Full jitter (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>): anything between nothing
/// and the bound, so that many who failed at once do not come back at once.
pub(crate) fn backoff(tried: u32) -> Duration {
    bound(tried).mul_f64(random())
}

fn bound(tried: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(tried.saturating_sub(1))).min(LONGEST)
}

/// From 0 to 1.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_are_jittered() {
        let bounds: Vec<u128> = [1, 2, 3, 7, 8, 40, u32::MAX].iter().map(|n| bound(*n).as_millis()).collect();
        assert_eq!(bounds, [250, 500, 1_000, 16_000, 20_000, 20_000, 20_000]);
        let waits: std::collections::BTreeSet<_> = (0..50).map(|_| backoff(4)).collect();
        assert!(waits.len() > 40 && waits.iter().all(|wait| *wait <= bound(4)), "{waits:?}");
    }
}
