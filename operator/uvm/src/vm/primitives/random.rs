//! Randomness: all of it comes from the turn's seed, so that a turn that runs again draws the same.

use super::{Entry, answer, body, failed_number, work};
use crate::vm::value::{Kind, Value};

pub(super) const TABLE: &[Entry] = &[
    ("_Draw", |m, _, _| {
        // A number below 2^46 that nothing in the turn predicts.
        work(m, 32)?;
        m.draws += 1;
        let hash = blake3::keyed_hash(&m.seed, format!("draw {}", m.draws).as_bytes());
        let bits = hash.as_bytes().iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        answer(below_46(bits))
    }),
    ("_Mix", |m, me, _| {
        // One step of splitmix64 from a state: spreads consecutive numbers over the range below 2^46.
        let Kind::Int(state) = me.kind() else {
            body(m, me)?;
            return failed_number(m, me);
        };
        let mut z = state.cast_unsigned().wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        answer(below_46(z ^ z >> 31))
    }),
];

fn below_46(bits: u64) -> Value {
    i64::try_from(bits >> 18).ok().and_then(Value::int).unwrap_or(Value::NIL)
}
