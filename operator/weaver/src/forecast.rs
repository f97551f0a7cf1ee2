//! How often each adapter is asked for, now and a while ahead.
//!
//! Two decaying counts an adapter: a slow one, that noise moves little, and a fast one, that is believed as soon as it
//! contradicts the slow one by more than chance explains (a flash crowd, a tenant who left). Beside them a profile of the
//! day. Whole numbers throughout: the same requests give the same forecast on every machine.

use std::collections::BTreeMap;

use crate::{AdapterId, Millis};

/// Requests in a million seconds.
pub type Rate = u64;

/// Half-lives of the counts, and the length of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub fast: Millis,
    pub slow: Millis,
    pub day: Millis,
}

impl Default for Pace {
    fn default() -> Self {
        Self { fast: 20_000, slow: 300_000, day: 24 * 3_600_000 }
    }
}

const HOURS: usize = 24;
/// One request.
const ONE: u64 = 1 << 16;

#[derive(Debug, Clone, Default)]
struct Seen {
    fast: Count,
    slow: Count,
    /// Requests by hour of the day, in 65536ths; older days count half as much each.
    hours: [u64; HOURS],
    /// The hour, counted from the beginning of time, that was added to last.
    hour: u64,
}

/// A count that halves with every half-life, in 65536ths of a request.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    value: u64,
    at: Millis,
}

impl Count {
    fn now(self, half_life: Millis, now: Millis) -> u64 {
        decay(self.value, now.saturating_sub(self.at), half_life)
    }

    fn add(&mut self, half_life: Millis, now: Millis) {
        *self = Self { value: self.now(half_life, now).saturating_add(ONE), at: now.max(self.at) };
    }
}

/// `value` halved once for each half-life in `time`; between, 2^-x by its series, off by less than 0.3 %.
fn decay(value: u64, time: Millis, half_life: Millis) -> u64 {
    let half_life = half_life.max(1);
    let halvings = time / half_life;
    if halvings >= 64 {
        return 0;
    }
    // Powers of ln 2 over factorials, in 65536ths.
    let x = (time % half_life) * ONE / half_life;
    let square = x * x / ONE;
    let cube = square * x / ONE;
    let factor = ONE + 15_744 * square / ONE + 630 * (cube * x / ONE) / ONE - 45_426 * x / ONE - 3_638 * cube / ONE;
    u64::try_from(u128::from(value >> halvings) * u128::from(factor) / u128::from(ONE)).unwrap_or(u64::MAX)
}

/// Rates by adapter. Time only grows; what comes late counts as now.
#[derive(Debug, Clone)]
pub struct Forecast {
    pace: Pace,
    began: Millis,
    seen: BTreeMap<AdapterId, Seen>,
}

impl Forecast {
    /// Watches from `now` on, in milliseconds since 1970.
    pub fn new(pace: Pace, now: Millis) -> Self {
        Self { pace, began: now, seen: BTreeMap::new() }
    }

    /// Somebody asked for the adapter.
    pub fn observe(&mut self, adapter: AdapterId, now: Millis) {
        let hour = self.hour(now);
        let Self { pace, seen, .. } = self;
        let seen = seen.entry(adapter).or_default();
        seen.fast.add(pace.fast, now);
        seen.slow.add(pace.slow, now);
        let of_day = (hour % HOURS as u64) as usize;
        if let Some(count) = seen.hours.get_mut(of_day) {
            // The first request of an hour ages what earlier days left there.
            if seen.hour != hour {
                *count /= 2;
                seen.hour = hour;
            }
            *count = count.saturating_add(ONE);
        }
    }

    fn hour(&self, now: Millis) -> u64 {
        now / (self.pace.day / HOURS as u64).max(1)
    }

    /// How often the adapter is asked for now.
    pub fn rate(&self, adapter: AdapterId, now: Millis) -> Rate {
        let Some(seen) = self.seen.get(&adapter) else { return 0 };
        let Pace { fast, slow, .. } = self.pace;
        let (few, many) = (seen.fast.now(fast, now), seen.slow.now(slow, now));
        let (quick, steady) = (self.per(few, fast, now), self.per(many, slow, now));
        // What the fast count should be if the steady rate held, and twice its standard deviation.
        let expected = self.count(steady, fast, now);
        let chance = 2 * ((expected + ONE) * ONE).isqrt();
        if few.abs_diff(expected) > chance { quick } else { steady }
    }

    /// How often it will be asked for after `ahead`, by what earlier days were like: at most four times as often as now,
    /// at least a quarter.
    pub fn ahead(&self, adapter: AdapterId, now: Millis, ahead: Millis) -> Rate {
        let rate = self.rate(adapter, now);
        let at = |time: Millis| {
            let hours = &self.seen.get(&adapter)?.hours;
            hours.get((self.hour(time) % HOURS as u64) as usize).copied()
        };
        match (at(now), at(now.saturating_add(ahead))) {
            (Some(here), Some(there)) if here >= 8 * ONE && there >= 8 * ONE => {
                let scaled = u128::from(rate) * u128::from(there) / u128::from(here);
                u64::try_from(scaled).unwrap_or(u64::MAX).clamp(rate / 4, rate.saturating_mul(4))
            }
            _ => rate,
        }
    }

    /// Forgets adapters that are gone.
    pub fn retain(&mut self, keep: impl Fn(AdapterId) -> bool) {
        self.seen.retain(|adapter, _| keep(*adapter));
    }

    /// The part of a count's final weight that has been watched for, in 65536ths.
    fn watched(&self, half_life: Millis, now: Millis) -> u64 {
        let watched = now.saturating_sub(self.began).max(1000);
        (ONE - decay(ONE, watched, half_life)).max(1)
    }

    /// The rate at which a count stays where it is.
    fn per(&self, count: u64, half_life: Millis, now: Millis) -> Rate {
        let scale = 693_147_181 * u128::from(ONE) / u128::from(half_life.max(1));
        let rate = u128::from(count) * scale / u128::from(self.watched(half_life, now)) / u128::from(ONE);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// The count that a rate comes to.
    fn count(&self, rate: Rate, half_life: Millis, now: Millis) -> u64 {
        let count = u128::from(rate) * u128::from(half_life) * u128::from(self.watched(half_life, now)) / 693_147_181;
        u64::try_from(count).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(forecast: &mut Forecast, adapter: AdapterId, from: Millis, until: Millis, gap: Millis) {
        (from..until).step_by(usize::try_from(gap).unwrap()).for_each(|now| forecast.observe(adapter, now));
    }

    #[track_caller]
    fn about(rate: Rate, wanted: Rate) {
        assert!(rate.abs_diff(wanted) <= wanted / 10, "{rate}, not about {wanted}");
    }

    #[test]
    fn decay_halves() {
        for (time, left) in [(0, 1000), (1000, 500), (3000, 125), (500, 707), (250, 840), (64_000, 0)] {
            let value = decay(1_000_000, time, 1000);
            assert!(value.abs_diff(left * 1000) <= 1000, "{time}: {value}");
        }
    }

    #[test]
    fn a_steady_rate_is_told_from_the_first_minute_on() {
        let mut forecast = Forecast::new(Pace::default(), 0);
        for minute in 0..30 {
            every(&mut forecast, 1, minute * 60_000, (minute + 1) * 60_000, 500);
            about(forecast.rate(1, (minute + 1) * 60_000), 2_000_000);
        }
        assert_eq!(forecast.rate(2, 60_000), 0);
    }

    #[test]
    fn a_crowd_and_its_end_are_seen_within_the_fast_half_life() {
        let mut forecast = Forecast::new(Pace::default(), 0);
        every(&mut forecast, 1, 0, 600_000, 10_000);
        about(forecast.rate(1, 600_000), 100_000);
        every(&mut forecast, 1, 600_000, 630_000, 100);
        assert!(forecast.rate(1, 630_000) > 5_000_000);
        assert!(forecast.rate(1, 720_000) < 1_000_000);
    }

    #[test]
    fn the_profile_of_the_day_leads() {
        let hour = 3_600_000;
        let mut forecast = Forecast::new(Pace::default(), 0);
        for day in 0..3 {
            every(&mut forecast, 1, day * 24 * hour + 8 * hour, day * 24 * hour + 9 * hour, 60_000);
            every(&mut forecast, 1, day * 24 * hour + 9 * hour, day * 24 * hour + 10 * hour, 20_000);
        }
        let now = 3 * 24 * hour + 9 * hour - 60_000;
        every(&mut forecast, 1, now - hour + 60_000, now, 60_000);
        let (rate, ahead) = (forecast.rate(1, now), forecast.ahead(1, now, 120_000));
        assert!(ahead > rate * 3 / 2, "{rate}, {ahead}");
    }
}
