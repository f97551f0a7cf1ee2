//! Bytes as people write and read them.

use std::fmt;
use std::str::FromStr;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// A number of bytes. Reads `8GiB`, `512 MiB`, `1.5GiB`, `4096`; prints the exact number beside the rounded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        match bytes {
            GIB.. => write!(f, "{bytes} bytes ({} GiB)", hundredths(bytes, GIB)),
            MIB.. => write!(f, "{bytes} bytes ({} MiB)", hundredths(bytes, MIB)),
            _ => write!(f, "{bytes} bytes"),
        }
    }
}

fn hundredths(bytes: u64, unit: u64) -> String {
    let rounded = (u128::from(bytes) * 100 + u128::from(unit / 2)) / u128::from(unit);
    format!("{}.{:02}", rounded / 100, rounded % 100)
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: a number with B, KiB, MiB, GiB, KB, MB or GB");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "ki" => KIB,
            "mib" | "mi" => MIB,
            "gib" | "gi" => GIB,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        decimal(number, unit).map(Self).ok_or_else(wrong)
    }
}

/// `number` units, exact to the last digit written, rounded down. No floating point: the same everywhere.
pub(crate) fn decimal(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || whole.len() > 19 {
        return None;
    }
    let digits = |text: &str| match text {
        "" => Some(0),
        text if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u64>().ok(),
        _ => None,
    };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = u128::from(digits(whole)?) * scale + u128::from(digits(fraction)?);
    u64::try_from(value * u128::from(unit) / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("8GiB", 8 * GIB), ("1.5 GiB", GIB * 3 / 2), ("4096", 4096), ("6gb", 6_000_000_000), (".5Mi", MIB / 2)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "GiB", "1..5GiB", "-1", "1e9", "99999999999999999999GiB", "18446744073709551615GiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_printed_exactly_and_rounded() {
        assert_eq!(Bytes(8 * GIB).to_string(), "8589934592 bytes (8.00 GiB)");
        assert_eq!(Bytes(1536 * KIB).to_string(), "1572864 bytes (1.50 MiB)");
        assert_eq!(Bytes(u64::MAX).to_string(), "18446744073709551615 bytes (17179869184.00 GiB)");
    }
}
