//! The tower of numbers: integers of any size, fractions in lowest terms, floats.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_traits::{Signed, ToPrimitive, Zero};

use super::{Result, body};
use crate::vm::{
    error::failed,
    heap::Body,
    machine::Machine,
    value::{Kind, Value},
};

pub(super) enum Number {
    Int(BigInt),
    /// In lowest terms, denominator greater than 1.
    Fraction(BigInt, BigInt),
    Float(f64),
}

impl Number {
    pub(super) fn to_f64(&self) -> f64 {
        match self {
            Self::Int(n) => n.to_f64().unwrap_or(f64::NAN),
            Self::Fraction(n, d) => quotient(n, d),
            Self::Float(x) => *x,
        }
    }

    /// The same value as numerator and denominator; `None` for infinities and NaN.
    pub(super) fn exact(self) -> Option<(BigInt, BigInt)> {
        let one = || BigInt::from(1);
        Some(match self {
            Self::Int(n) => (n, one()),
            Self::Fraction(n, d) => (n, d),
            Self::Float(x) if !x.is_finite() => return None,
            Self::Float(x) => {
                // mantissa × 2^exponent, from the bits.
                let bits = x.to_bits();
                let (sign, biased) = (x.is_sign_negative(), i64::try_from(bits >> 52 & 0x7FF).unwrap_or_default());
                let fraction = bits & ((1 << 52) - 1);
                let mantissa = if biased == 0 { fraction << 1 } else { fraction | 1 << 52 };
                let exponent = biased - 1075;
                let mantissa = BigInt::from_biguint(if sign { Sign::Minus } else { Sign::Plus }, mantissa.into());
                match usize::try_from(exponent) {
                    Ok(up) => (mantissa << up, one()),
                    Err(_) => lowest(mantissa, one() << usize::try_from(-exponent).unwrap_or_default()),
                }
            }
        })
    }
}

/// Correctly rounded n / d.
fn quotient(n: &BigInt, d: &BigInt) -> f64 {
    // 66 bits of quotient; the lowest says whether there was a rest.
    let shift = 66 - i64::try_from(n.bits()).unwrap_or(i64::MAX) + i64::try_from(d.bits()).unwrap_or(i64::MAX);
    let by = usize::try_from(shift.unsigned_abs()).unwrap_or(usize::MAX);
    let (n, d) = if shift >= 0 { (n << by, d.clone()) } else { (n.clone(), d << by) };
    let (quotient, rest) = n.abs().div_rem(&d);
    let quotient: BigInt = if rest.is_zero() { quotient } else { quotient | BigInt::from(1) };
    let half = i32::try_from(shift / 2).unwrap_or(i32::MAX);
    let rest = i32::try_from(shift).unwrap_or(i32::MAX) - half;
    let size = quotient.to_f64().unwrap_or(f64::NAN) * 2_f64.powi(-half) * 2_f64.powi(-rest);
    if n.is_negative() { -size } else { size }
}

pub(super) fn lowest(n: BigInt, d: BigInt) -> (BigInt, BigInt) {
    let common = n.gcd(&d);
    let sign = if d.is_negative() { -common } else { common };
    (n / &sign, d / sign)
}

pub(super) fn number_or_none(m: &Machine, value: Value) -> Result<Option<Number>> {
    Ok(match value.kind() {
        Kind::Int(n) => Some(Number::Int(BigInt::from(n))),
        Kind::Float(x) => Some(Number::Float(x)),
        _ => match body(m, value)? {
            Body::Big(n) => Some(Number::Int((**n).clone())),
            Body::Fraction(n) => Some(Number::Fraction(n.numerator.clone(), n.denominator.clone())),
            _ => None,
        },
    })
}

pub(super) fn number(m: &Machine, value: Value) -> Result<Number> {
    match number_or_none(m, value)? {
        Some(number) => Ok(number),
        None => failed(format!("{} is no number", m.describe(value))),
    }
}

pub(super) fn big(m: &Machine, value: Value) -> Result<BigInt> {
    match number(m, value)? {
        Number::Int(n) => Ok(n),
        _ => failed(format!("{} is no integer", m.describe(value))),
    }
}

pub(super) fn exact(m: &Machine, value: Value) -> Result<(BigInt, BigInt)> {
    match number(m, value)?.exact() {
        Some(exact) => Ok(exact),
        None => failed(format!("{} is no fraction", m.describe(value))),
    }
}

pub(super) fn small_float(value: Value) -> Option<f64> {
    match value.kind() {
        Kind::Int(n) => Some(n as f64),
        Kind::Float(x) => Some(x),
        _ => None,
    }
}

/// Order of two numbers; `None` if one is NaN. Exact: a float is compared by the value that it stands for.
pub(super) fn order(m: &Machine, left: Value, right: Value) -> Result<Option<Ordering>> {
    if let (Some(a), Some(b)) = (small_float(left), small_float(right)) {
        return Ok(a.partial_cmp(&b));
    }
    let (a, b) = (number(m, left)?, number(m, right)?);
    let (x, y) = (a.to_f64(), b.to_f64());
    if x.is_infinite() || y.is_infinite() || x.is_nan() || y.is_nan() {
        let magnitude = |n: &Number, x: f64| if matches!(n, Number::Float(_)) { x } else { x.signum() * f64::MAX };
        if matches!(a, Number::Float(_)) || matches!(b, Number::Float(_)) {
            return Ok(magnitude(&a, x).partial_cmp(&magnitude(&b, y)));
        }
    }
    Ok(match (a.exact(), b.exact()) {
        (Some((a, b)), Some((c, d))) => Some((a * d).cmp(&(c * b))),
        _ => None,
    })
}

pub(super) fn is_number(m: &Machine, value: Value) -> Result<bool> {
    Ok(match value.kind() {
        Kind::Int(_) | Kind::Float(_) => true,
        _ => matches!(body(m, value)?, Body::Big(_) | Body::Fraction(_)),
    })
}

/// Bytes that are the same for equal numbers.
pub(super) fn hash_bytes(m: &Machine, value: Value) -> Result<Vec<u8>> {
    Ok(match number(m, value)?.exact() {
        Some((n, d)) => [n.to_signed_bytes_le(), d.to_signed_bytes_le()].concat(),
        None => float_text(small_float(value).unwrap_or(f64::NAN)).into_bytes(),
    })
}

/// A float as Smalltalk prints it: always with a point.
pub(super) fn float_text(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "infinity" } else { "-infinity" }.to_owned();
    }
    let text = format!("{x:?}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => text,
    }
}

/// `42`, `-1.5e3`, `16rFF`, `1/3`
pub(super) fn parse(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = !unsigned.starts_with(['-', '+']);
    if let Some((radix, digits)) = unsigned.split_once('r') {
        let radix = radix.parse().ok().filter(|radix| (2..=36).contains(radix))?;
        let n = BigInt::parse_bytes(digits.as_bytes(), radix).filter(|_| digits.starts_with(char::is_alphanumeric))?;
        return Some(Number::Int(if text.starts_with('-') { -n } else { n }));
    }
    if let Some((n, d)) = text.split_once('/') {
        let (n, d): (BigInt, BigInt) = (n.trim().parse().ok()?, d.trim().parse().ok()?);
        return (!d.is_zero()).then_some(Number::Fraction(n, d));
    }
    if let Ok(n) = text.parse().map(Number::Int) {
        return plain.then_some(n);
    }
    let numeric =
        unsigned.starts_with(|c: char| c.is_ascii_digit()) && unsigned.ends_with(|c: char| c.is_ascii_digit());
    text.parse().ok().filter(|_| numeric && plain).map(Number::Float)
}
