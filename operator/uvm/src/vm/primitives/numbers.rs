//! Integers of any size, fractions and floats: one tower, in which exact results stay exact.

use std::{cmp::Ordering, sync::Arc};

use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_traits::{FromPrimitive, Signed, ToPrimitive, Zero};

use super::{Entry, Flow, Result, answer, arg, body, boolean, count, integer, send, text, work};
use crate::image;
use crate::vm::{
    error::{failed, limit, raise},
    heap::{Body, Fraction},
    machine::Machine,
    value::{Kind, Value},
};

/// Largest integer that is made, in bits.
const MAX_BITS: u64 = 1 << 20;

pub(super) const TABLE: &[Entry] = &[
    ("_IntAdd:", |m, me, a| arithmetic(m, Operation::Add, me, arg(a, 0))),
    ("_IntSub:", |m, me, a| arithmetic(m, Operation::Subtract, me, arg(a, 0))),
    ("_IntMul:", |m, me, a| arithmetic(m, Operation::Multiply, me, arg(a, 0))),
    ("_IntDiv:", |m, me, a| arithmetic(m, Operation::Divide, me, arg(a, 0))),
    ("_IntFloorDiv:", |m, me, a| arithmetic(m, Operation::FloorDivide, me, arg(a, 0))),
    ("_IntMod:", |m, me, a| arithmetic(m, Operation::Modulo, me, arg(a, 0))),
    ("_Less:", |m, me, a| compare(m, "<", Ordering::is_lt, me, arg(a, 0))),
    ("_Greater:", |m, me, a| compare(m, ">", Ordering::is_gt, me, arg(a, 0))),
    ("_LessEqual:", |m, me, a| compare(m, "<=", Ordering::is_le, me, arg(a, 0))),
    ("_GreaterEqual:", |m, me, a| compare(m, ">=", Ordering::is_ge, me, arg(a, 0))),
    ("_AsFloat", |m, me, _| number(m, me).and_then(|n| answer(Value::float(n.to_f64())))),
    ("_Truncated", |m, me, _| whole(m, me, f64::trunc, |n, d| n / d)),
    ("_Floor", |m, me, _| whole(m, me, f64::floor, |n, d| n.div_floor(d))),
    ("_Ceiling", |m, me, _| whole(m, me, f64::ceil, |n, d| n.div_ceil(d))),
    ("_Rounded", |m, me, _| {
        // Half away from zero.
        whole(m, me, f64::round, |n, d| {
            let doubled: BigInt = (n.abs() * 2 + d) / (d * 2);
            if n.is_negative() { -doubled } else { doubled }
        })
    }),
    ("_Numerator", |m, me, _| {
        let (numerator, _) = exact(m, me)?;
        m.heap.integer(numerator).map(Flow::Value)
    }),
    ("_Denominator", |m, me, _| {
        let (_, denominator) = exact(m, me)?;
        m.heap.integer(denominator).map(Flow::Value)
    }),
    ("_Gcd:", |m, me, a| {
        let (left, right) = (big(m, me)?, big(m, arg(a, 0))?);
        pay(m, &left, &right)?;
        m.heap.integer(left.gcd(&right)).map(Flow::Value)
    }),
    ("_RaisedTo:", |m, me, a| {
        let (base, exponent) = (number(m, me)?, integer(m, arg(a, 0))?);
        let Ok(exponent) = u32::try_from(exponent) else { return failed("the exponent is negative or too large") };
        let (numerator, denominator) = match base {
            Number::Float(x) => return answer(Value::float(x.powi(i32::try_from(exponent).unwrap_or(i32::MAX)))),
            Number::Int(n) => (n, BigInt::from(1)),
            Number::Fraction(n, d) => (n, d),
        };
        let unit = numerator.magnitude() <= &1_u8.into() && denominator.magnitude() <= &1_u8.into();
        let bits = numerator.bits().max(denominator.bits()).saturating_mul(u64::from(exponent));
        if bits > MAX_BITS && !unit {
            return limit(format!("an integer of more than {MAX_BITS} bits"));
        }
        if unit {
            let negative = numerator.is_negative() && exponent % 2 == 1;
            let power = if numerator.is_zero() && exponent > 0 {
                0
            } else if negative {
                -1
            } else {
                1
            };
            return m.heap.integer(power.into()).map(Flow::Value);
        }
        work(m, usize::try_from(bits / 64 * (bits / 4096)).unwrap_or(usize::MAX))?;
        ratio(m, numerator.pow(exponent), denominator.pow(exponent))
    }),
    ("_Power:", |m, me, a| real(m, me, arg(a, 0), f64::powf)),
    ("_BitAnd:", |m, me, a| bits(m, me, arg(a, 0), |a, b| a & b)),
    ("_BitOr:", |m, me, a| bits(m, me, arg(a, 0), |a, b| a | b)),
    ("_BitXor:", |m, me, a| bits(m, me, arg(a, 0), |a, b| a ^ b)),
    ("_BitShift:", |m, me, a| {
        let (n, by) = (big(m, me)?, integer(m, arg(a, 0))?);
        let shifted = match usize::try_from(by) {
            Ok(_) if n.is_zero() => n,
            Ok(by) if n.bits().saturating_add(by as u64) > MAX_BITS => {
                return limit(format!("an integer of more than {MAX_BITS} bits"));
            }
            Ok(by) => n << by,
            // Rounds towards negative infinity, as shifting two's complement does.
            Err(_) => n >> usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX),
        };
        m.heap.integer(shifted).map(Flow::Value)
    }),
    ("_HighBit", |m, me, _| big(m, me).and_then(|n| answer(count(usize::try_from(n.bits()).unwrap_or_default())))),
    ("_Sqrt", |m, me, _| domain(m, me, "square root", |x| x >= 0.0, f64::sqrt)),
    ("_SqrtFloor", |m, me, _| {
        let n = big(m, me)?;
        if n.is_negative() {
            return failed(format!("{n} has no real square root"));
        }
        pay(m, &n, &n)?;
        m.heap.integer(n.sqrt()).map(Flow::Value)
    }),
    ("_Ln", |m, me, _| domain(m, me, "logarithm", |x| x > 0.0, f64::ln)),
    ("_Log10", |m, me, _| domain(m, me, "logarithm", |x| x > 0.0, f64::log10)),
    ("_Log2", |m, me, _| domain(m, me, "logarithm", |x| x > 0.0, f64::log2)),
    ("_Exp", |m, me, _| domain(m, me, "power", |_| true, f64::exp)),
    ("_Sin", |m, me, _| domain(m, me, "sine", f64::is_finite, f64::sin)),
    ("_Cos", |m, me, _| domain(m, me, "cosine", f64::is_finite, f64::cos)),
    ("_Tan", |m, me, _| domain(m, me, "tangent", f64::is_finite, f64::tan)),
    ("_ArcSin", |m, me, _| domain(m, me, "arc sine", |x| x.abs() <= 1.0, f64::asin)),
    ("_ArcCos", |m, me, _| domain(m, me, "arc cosine", |x| x.abs() <= 1.0, f64::acos)),
    ("_ArcTan", |m, me, _| domain(m, me, "arc tangent", |_| true, f64::atan)),
    ("_ArcTan:", |m, me, a| real(m, me, arg(a, 0), f64::atan2)),
    ("_IsNan", |m, me, _| number(m, me).and_then(|n| boolean(n.to_f64().is_nan()))),
    ("_IsInfinite", |m, me, _| number(m, me).and_then(|n| boolean(matches!(n, Number::Float(x) if x.is_infinite())))),
    ("_FloatNan", |_, _, _| answer(Value::float(f64::NAN))),
    ("_FloatInfinity", |_, _, _| answer(Value::float(f64::INFINITY))),
    ("_PrintRadix:", |m, me, a| {
        let (n, radix) = (big(m, me)?, integer(m, arg(a, 0))?);
        match u32::try_from(radix) {
            Ok(radix @ 2..=36) => {
                pay(m, &n, &n)?;
                m.heap.string(&n.to_str_radix(radix).to_uppercase()).map(Flow::Value)
            }
            _ => failed(format!("radix {radix} is not between 2 and 36")),
        }
    }),
    ("_PrintDecimals:", |m, me, a| {
        let (n, places) = (number(m, me)?.to_f64(), integer(m, arg(a, 0))?);
        match usize::try_from(places) {
            Ok(places @ 0..=100) => m.heap.string(&format!("{n:.places$}")).map(Flow::Value),
            _ => failed(format!("{places} decimals is not between 0 and 100")),
        }
    }),
    ("_ParseNumber", |m, me, _| {
        let parsed = parse(text(m, me)?.trim());
        match parsed {
            Some(Number::Int(n)) => m.heap.integer(n).map(Flow::Value),
            Some(Number::Float(x)) => answer(Value::float(x)),
            Some(Number::Fraction(n, d)) => ratio(m, n, d),
            None => answer(Value::NIL),
        }
    }),
    ("_ParseInteger", |m, me, _| {
        let text = text(m, me)?;
        // The first one in the text, with its sign.
        let Some(at) = text.find(|c: char| c.is_ascii_digit()) else { return answer(Value::NIL) };
        let (before, rest) = text.split_at(at);
        let digits = rest.find(|c: char| !c.is_ascii_digit()).and_then(|end| rest.get(..end)).unwrap_or(rest);
        let n: BigInt = digits.parse().unwrap_or_default();
        m.heap.integer(if before.ends_with('-') { -n } else { n }).map(Flow::Value)
    }),
    ("_ParseRadix:", |m, me, a| {
        let (text, radix) = (text(m, me)?, integer(m, arg(a, 0))?);
        let radix = u32::try_from(radix).ok().filter(|radix| (2..=36).contains(radix));
        match radix.and_then(|radix| BigInt::parse_bytes(text.as_bytes(), radix)) {
            Some(n) => m.heap.integer(n).map(Flow::Value),
            None => answer(Value::NIL),
        }
    }),
];

enum Number {
    Int(BigInt),
    /// In lowest terms, denominator greater than 1.
    Fraction(BigInt, BigInt),
    Float(f64),
}

impl Number {
    fn to_f64(&self) -> f64 {
        match self {
            Self::Int(n) => n.to_f64().unwrap_or(f64::NAN),
            Self::Fraction(n, d) => quotient(n, d),
            Self::Float(x) => *x,
        }
    }

    /// The same value as numerator and denominator; `None` for infinities and NaN.
    fn exact(self) -> Option<(BigInt, BigInt)> {
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

fn lowest(n: BigInt, d: BigInt) -> (BigInt, BigInt) {
    let common = n.gcd(&d);
    let sign = if d.is_negative() { -common } else { common };
    (n / &sign, d / sign)
}

fn number_or_none(m: &Machine, value: Value) -> Result<Option<Number>> {
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

fn number(m: &Machine, value: Value) -> Result<Number> {
    match number_or_none(m, value)? {
        Some(number) => Ok(number),
        None => failed(format!("{} is no number", m.describe(value))),
    }
}

fn big(m: &Machine, value: Value) -> Result<BigInt> {
    match number(m, value)? {
        Number::Int(n) => Ok(n),
        _ => failed(format!("{} is no integer", m.describe(value))),
    }
}

fn exact(m: &Machine, value: Value) -> Result<(BigInt, BigInt)> {
    match number(m, value)?.exact() {
        Some(exact) => Ok(exact),
        None => failed(format!("{} is no fraction", m.describe(value))),
    }
}

/// Fuel for work that grows with the product of two integers' lengths.
fn pay(m: &mut Machine, a: &BigInt, b: &BigInt) -> Result<()> {
    let product = (a.bits() / 64).saturating_mul(b.bits() / 64);
    work(m, usize::try_from(product).unwrap_or(usize::MAX))
}

/// n / d as an integer or a fraction.
fn ratio(m: &mut Machine, n: BigInt, d: BigInt) -> Result<Flow> {
    let (numerator, denominator) = lowest(n, d);
    if denominator == BigInt::from(1) {
        return m.heap.integer(numerator).map(Flow::Value);
    }
    let fraction = Fraction { numerator, denominator };
    m.heap.create(Vec::new(), Body::Fraction(Arc::new(fraction))).map(Value::object).map(Flow::Value)
}

#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
}

impl Operation {
    fn selector(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Modulo => "\\\\",
        }
    }

    fn divides(self) -> bool {
        matches!(self, Self::Divide | Self::FloorDivide | Self::Modulo)
    }
}

fn arithmetic(m: &mut Machine, operation: Operation, left: Value, right: Value) -> Result<Flow> {
    use Operation::{Add, Divide, FloorDivide, Modulo, Multiply, Subtract};
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        // 48-bit operands: sums fit, products are checked.
        let small = match operation {
            Add => Some(a + b),
            Subtract => Some(a - b),
            Multiply => a.checked_mul(b),
            FloorDivide if b != 0 => Some(Integer::div_floor(&a, &b)),
            Modulo if b != 0 => Some(Integer::mod_floor(&a, &b)),
            Divide if b != 0 && a % b == 0 => Some(a / b),
            _ => None,
        };
        if let Some(value) = small.and_then(Value::int) {
            return answer(value);
        }
    }
    if let (Some(a), Some(b)) = (small_float(left), small_float(right))
        && !(operation.divides() && b == 0.0)
        && (matches!(left.kind(), Kind::Float(_)) || matches!(right.kind(), Kind::Float(_)))
    {
        return floating(m, operation, a, b);
    }
    let a = number(m, left)?;
    let Some(b) = number_or_none(m, right)? else {
        // Whoever knows more about this argument says what to do.
        let selector = Value::symbol(m.heap.symbols.intern(operation.selector()));
        return send(m, "retry:coercing:", vec![selector, right]);
    };
    let is_zero = match &b {
        Number::Int(n) => n.is_zero(),
        Number::Float(x) => *x == 0.0,
        Number::Fraction(..) => false,
    };
    if is_zero && operation.divides() {
        return raise(image::ZERO_DIVIDE, format!("{} divided by 0", m.describe(left)));
    }
    let (a, b, c, d) = match (a, b) {
        (Number::Int(a), Number::Int(b)) => return integral(m, operation, a, b),
        (Number::Float(a), b) => return floating(m, operation, a, b.to_f64()),
        (a, Number::Float(b)) => return floating(m, operation, a.to_f64(), b),
        (Number::Int(a), Number::Fraction(c, d)) => (a, BigInt::from(1), c, d),
        (Number::Fraction(a, b), Number::Int(c)) => (a, b, c, BigInt::from(1)),
        (Number::Fraction(a, b), Number::Fraction(c, d)) => (a, b, c, d),
    };
    // a/b and c/d.
    if a.bits().max(c.bits()) + b.bits() + d.bits() > MAX_BITS {
        return limit(format!("an integer of more than {MAX_BITS} bits"));
    }
    pay(m, &b, &d)?;
    match operation {
        Add => ratio(m, a * &d + c * &b, b * d),
        Subtract => ratio(m, a * &d - c * &b, b * d),
        Multiply => ratio(m, a * c, b * d),
        Divide => ratio(m, a * d, b * c),
        FloorDivide => m.heap.integer((a * d).div_floor(&(b * c))).map(Flow::Value),
        Modulo => {
            let (left, right) = (a * &d, c * &b);
            ratio(m, left.mod_floor(&right), b * d)
        }
    }
}

fn integral(m: &mut Machine, operation: Operation, a: BigInt, b: BigInt) -> Result<Flow> {
    use Operation::{Add, Divide, FloorDivide, Modulo, Multiply, Subtract};
    let multiplies = matches!(operation, Multiply);
    if multiplies && a.bits() + b.bits() > MAX_BITS || a.bits().max(b.bits()) >= MAX_BITS {
        return limit(format!("an integer of more than {MAX_BITS} bits"));
    }
    if multiplies || operation.divides() {
        pay(m, &a, &b)?;
    }
    let result = match operation {
        Add => a + b,
        Subtract => a - b,
        Multiply => a * b,
        FloorDivide => a.div_floor(&b),
        Modulo => a.mod_floor(&b),
        Divide => return ratio(m, a, b),
    };
    m.heap.integer(result).map(Flow::Value)
}

fn small_float(value: Value) -> Option<f64> {
    match value.kind() {
        Kind::Int(n) => Some(n as f64),
        Kind::Float(x) => Some(x),
        _ => None,
    }
}

fn floating(m: &mut Machine, operation: Operation, a: f64, b: f64) -> Result<Flow> {
    let result = match operation {
        Operation::Add => a + b,
        Operation::Subtract => a - b,
        Operation::Multiply => a * b,
        Operation::Divide => a / b,
        // The quotient is an integer, as with integers.
        Operation::FloorDivide => return whole(m, Value::float(a / b), f64::floor, |n, d| n.div_floor(d)),
        Operation::Modulo => a - (a / b).floor() * b,
    };
    answer(Value::float(result))
}

/// An integer near a number: `float` for floats, `ratio` for fractions.
fn whole(m: &mut Machine, value: Value, float: fn(f64) -> f64, ratio: fn(&BigInt, &BigInt) -> BigInt) -> Result<Flow> {
    let n = match number(m, value)? {
        Number::Int(_) => return answer(value),
        Number::Fraction(n, d) => ratio(&n, &d),
        Number::Float(x) => match BigInt::from_f64(float(x)) {
            Some(n) => n,
            None => return failed(format!("{} has no integer part", float_text(x))),
        },
    };
    m.heap.integer(n).map(Flow::Value)
}

fn bits(m: &mut Machine, left: Value, right: Value, combine: fn(BigInt, BigInt) -> BigInt) -> Result<Flow> {
    let (a, b) = (big(m, left)?, big(m, right)?);
    m.heap.integer(combine(a, b)).map(Flow::Value)
}

fn real(m: &mut Machine, left: Value, right: Value, combine: fn(f64, f64) -> f64) -> Result<Flow> {
    let (a, b) = (number(m, left)?.to_f64(), number(m, right)?.to_f64());
    answer(Value::float(combine(a, b)))
}

fn domain(
    m: &mut Machine,
    value: Value,
    what: &str,
    within: fn(f64) -> bool,
    function: fn(f64) -> f64,
) -> Result<Flow> {
    let x = number(m, value)?.to_f64();
    match x.is_nan() || within(x) {
        true => answer(Value::float(function(x))),
        false => failed(format!("{} has no real {what}", m.describe(value))),
    }
}

fn compare(m: &mut Machine, selector: &str, wanted: fn(Ordering) -> bool, left: Value, right: Value) -> Result<Flow> {
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return boolean(wanted(a.cmp(&b)));
    }
    if let (Kind::Char(a), Kind::Char(b)) = (left.kind(), right.kind()) {
        return boolean(wanted(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (m.heap.text(left)?, m.heap.text(right)?) {
        return boolean(wanted(a.cmp(b)));
    }
    let is_number = number_or_none(m, left)?.is_some();
    if is_number && number_or_none(m, right)?.is_none() {
        let selector = Value::symbol(m.heap.symbols.intern(selector));
        return send(m, "retry:coercing:", vec![selector, right]);
    }
    if !is_number {
        body(m, right)?;
        return failed(format!("{} cannot be compared with {}", m.describe(left), m.describe(right)));
    }
    boolean(order(m, left, right)?.is_some_and(wanted))
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
fn parse(text: &str) -> Option<Number> {
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
