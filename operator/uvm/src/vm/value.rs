//! Values: 8 bytes, copied freely. Floats are themselves; all else hides in the payload of negative quiet NaNs.

/// Index of an object in the turn's heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Handle(pub u32);

/// Index of a symbol in the turn's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Symbol(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Value(u64);

/// A value taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Nil,
    Bool(bool),
    /// 48 bits; larger integers are objects.
    Int(i64),
    Float(f64),
    Symbol(Symbol),
    Char(char),
    Object(Handle),
}

const TAG: u64 = 0xFFFF << 48;
const PAYLOAD: u64 = !TAG;
const INT: u64 = 0xFFF9 << 48;
const OBJECT: u64 = 0xFFFA << 48;
const SYMBOL: u64 = 0xFFFB << 48;
const SPECIAL: u64 = 0xFFFC << 48;
const CHAR: u64 = 0xFFFD << 48;
const INT_MAX: i64 = (1 << 47) - 1;
const INT_MIN: i64 = -(1 << 47);

impl Value {
    pub const NIL: Self = Self(SPECIAL);
    pub const FALSE: Self = Self(SPECIAL | 1);
    pub const TRUE: Self = Self(SPECIAL | 2);

    /// `None` when it needs more than 48 bits.
    #[inline]
    pub fn int(n: i64) -> Option<Self> {
        (INT_MIN..=INT_MAX).contains(&n).then_some(Self(INT | (n as u64 & PAYLOAD)))
    }

    pub fn float(x: f64) -> Self {
        // One NaN for all, outside the tags.
        Self(if x.is_nan() { f64::NAN.to_bits() & !(1 << 63) } else { x.to_bits() })
    }

    pub fn bool(b: bool) -> Self {
        if b { Self::TRUE } else { Self::FALSE }
    }

    pub fn symbol(symbol: Symbol) -> Self {
        Self(SYMBOL | u64::from(symbol.0))
    }

    pub fn char(c: char) -> Self {
        Self(CHAR | u64::from(u32::from(c)))
    }

    pub fn object(handle: Handle) -> Self {
        Self(OBJECT | u64::from(handle.0))
    }

    #[inline]
    pub fn kind(self) -> Kind {
        let payload = self.0 & PAYLOAD;
        match self.0 & TAG {
            INT => Kind::Int(((payload << 16) as i64) >> 16),
            OBJECT => Kind::Object(Handle(payload as u32)),
            SYMBOL => Kind::Symbol(Symbol(payload as u32)),
            CHAR => Kind::Char(char::from_u32(payload as u32).unwrap_or(char::REPLACEMENT_CHARACTER)),
            SPECIAL => match payload {
                0 => Kind::Nil,
                other => Kind::Bool(other == 2),
            },
            _ => Kind::Float(f64::from_bits(self.0)),
        }
    }

    /// A count or index; what a turn's memory holds fits.
    pub fn small(n: usize) -> Self {
        i64::try_from(n).ok().and_then(Self::int).unwrap_or(Self::NIL)
    }

    #[inline]
    pub fn is_int(self) -> bool {
        self.0 & TAG == INT
    }

    /// The number of a small integer; of anything else, nonsense.
    #[inline]
    pub fn int_part(self) -> i64 {
        ((self.0 << 16) as i64) >> 16
    }

    #[inline]
    pub fn is_float(self) -> bool {
        self.0 < INT
    }

    /// The number of a float; of anything else, nonsense.
    #[inline]
    pub fn float_part(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// The number of a small integer or a float.
    #[inline]
    pub fn as_number(self) -> Option<f64> {
        if self.is_float() {
            Some(self.float_part())
        } else if self.is_int() {
            Some(self.int_part() as f64)
        } else {
            None
        }
    }

    /// The code point of a character.
    #[inline]
    pub fn as_char(self) -> Option<u32> {
        (self.0 & TAG == CHAR).then_some(self.0 as u32)
    }

    #[inline]
    pub fn as_int(self) -> Option<i64> {
        self.is_int().then(|| self.int_part())
    }

    #[inline]
    pub fn as_object(self) -> Option<Handle> {
        (self.0 & TAG == OBJECT).then_some(Handle(self.0 as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_encoding() {
        assert_eq!(size_of::<Value>(), 8);
        for n in [0, 1, -1, INT_MAX, INT_MIN] {
            assert_eq!(Value::int(n).unwrap().kind(), Kind::Int(n));
        }
        assert_eq!((Value::int(INT_MAX + 1), Value::int(INT_MIN - 1)), (None, None));
        for x in [0.0, -0.0, 1.5, f64::INFINITY, f64::NEG_INFINITY, f64::MIN, f64::MAX] {
            assert_eq!(Value::float(x).kind(), Kind::Float(x));
        }
        assert!(matches!(Value::float(-f64::NAN).kind(), Kind::Float(x) if x.is_nan()));
        for c in ['a', '\0', char::MAX] {
            assert_eq!(Value::char(c).kind(), Kind::Char(c));
        }
        assert_eq!(Value::object(Handle(u32::MAX)).kind(), Kind::Object(Handle(u32::MAX)));
    }
}
