//! Arithmetic and functions of numbers: exact results stay exact.

use std::{cmp::Ordering, sync::Arc};

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{FromPrimitive, Signed, Zero};

use super::{
    Entry, Flow, Result, answer, arg, body, boolean, count, integer, send, text,
    tower::{Number, big, exact, float_text, lowest, number, number_or_none, order, parse, small_float},
    work,
};
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

/// Fuel for work that grows with the product of two integers' lengths.
pub(super) fn pay(m: &mut Machine, a: &BigInt, b: &BigInt) -> Result<()> {
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
    match multiplies || operation.divides() {
        true => pay(m, &a, &b)?,
        false => work(m, usize::try_from(a.bits().max(b.bits()) / 64).unwrap_or(usize::MAX))?,
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
        let (order, bytes) = (a.cmp(b), a.len().min(b.len()));
        work(m, bytes)?;
        return boolean(wanted(order));
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
