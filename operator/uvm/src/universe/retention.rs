//! How long a universe keeps what was.

use std::{str::FromStr, time::Duration};

const DAY: u64 = 24 * 60 * 60;

/// How long something is kept: `90s`, `15m`, `12h`, `30d`, or `forever`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    For(Duration),
    Forever,
}

impl Age {
    /// Whether what is from `then` may go, both in seconds since 1970.
    pub(super) fn has_passed(self, then: u64, now: u64) -> bool {
        match self {
            Self::For(age) => now.saturating_sub(then) > age.as_secs(),
            Self::Forever => false,
        }
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let bad = || format!("{text:?} is no length of time: write 90s, 15m, 12h, 30d (1 to 99999 of them) or forever");
        let unit = match text.as_bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 60 * 60,
            Some(b'd') => DAY,
            _ => return Err(bad()),
        };
        let digits = text.get(..text.len() - 1).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let count = digits.and_then(|digits| digits.parse::<u64>().ok()).filter(|count| (1..=99_999).contains(count));
        count.map(|count| Self::For(Duration::from_secs(count * unit))).ok_or_else(bad)
    }
}

/// What housekeeping leaves. Overwritten methods stay for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Data that was overwritten.
    pub history: Age,
    /// Replies under message ids: the window in which a repeat is answered and not done again.
    pub replies: Age,
    /// Objects that nothing reaches, with all that they were.
    pub unreached: Age,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days| Age::For(Duration::from_secs(days * DAY));
        Self { history: days(30), replies: days(1), unreached: days(1) }
    }
}

/// When an id was made, in seconds since 1970, if it is a UUID of version 7, which tells.
pub(super) fn time_of(id: &str) -> Option<u64> {
    let digits: String = id.split('-').collect();
    let is_uuid = id.len() == 36 && digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let (version, variant) = (digits.get(12..13)?, digits.get(16..17)?);
    let is_timed = version == "7" && matches!(variant, "8" | "9" | "a" | "b" | "A" | "B");
    let milliseconds = u64::from_str_radix(digits.get(..12)?, 16).ok()?;
    (is_uuid && is_timed).then_some(milliseconds / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_and_nonsense_is_refused() {
        for (text, seconds) in
            [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("99999d", 99_999 * DAY)]
        {
            assert_eq!(text.parse(), Ok(Age::For(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!("forever".parse(), Ok(Age::Forever));
        for text in ["", "d", "0d", "1", "-1d", "+1d", "1.5h", "1w", "100000s", "1 d", "é", "9é", "1D"] {
            assert!(text.parse::<Age>().unwrap_err().contains(text), "{text}");
        }
    }
    #[test]
    fn only_a_uuid_of_version_7_tells_its_time() {
        assert_eq!(time_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), Some(1_645_557_742), "the example of RFC 9562");
        for id in [
            "",
            "monday",
            "919108f7-52d1-4320-9bac-f847db4148a8",
            "017f22e279b07cc398c4dc0c0c07398f",
            "017f22e2-79b0-7cc3-18c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398é",
            "é17f22e2-79b0-7cc3-98c4-dc0c0c07398",
        ] {
            assert_eq!(time_of(id), None, "{id}");
        }
    }
}
