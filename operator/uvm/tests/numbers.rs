//! Integer arithmetic of the language beside num-bigint, on operands of every size.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::World;
use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::FromPrimitive;
use proptest::prelude::*;

/// Integers around every boundary: small ones, those near 48 and 64 bits, large ones.
fn integer() -> impl Strategy<Value = BigInt> {
    prop_oneof![
        (-100_i64..100).prop_map(BigInt::from),
        any::<i64>().prop_map(BigInt::from),
        (0_u32..130, -3_i64..4, any::<bool>()).prop_map(|(bits, delta, negative)| {
            let n = (BigInt::from(1) << bits) + delta;
            if negative { -n } else { n }
        }),
        proptest::collection::vec(any::<u32>(), 1..12)
            .prop_map(|digits| BigInt::from_slice(num_bigint::Sign::Minus, &digits)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn integers_are_those_of_num_bigint(a in integer(), b in integer(), shift in -70_i64..70) {
        let world = World::new();
        let mut wanted = vec![&a + &b, &a - &b, &a * &b, &a & &b, &a | &b, &a ^ &b, a.gcd(&b), -&a];
        let mut source = format!(
            "| a b | a := {a}. b := {b}. {{a + b. a - b. a * b. a bitAnd: b. a bitOr: b. a bitXor: b. a gcd: b. a negated"
        );
        if b != BigInt::ZERO {
            source += ". a // b. a \\\\ b. a quo: b. a rem: b";
            let (quotient, rest) = a.div_mod_floor(&b);
            wanted.extend([quotient, rest, &a / &b, &a % &b]);
        }
        source += &format!(". a bitShift: {shift}");
        wanted.push(match usize::try_from(shift) {
            Ok(left) => &a << left,
            Err(_) => &a >> usize::try_from(-shift).unwrap(),
        });
        source += "} collect: [ :n | n printString ]";
        let answer = world.eval(&source).map_err(|error| TestCaseError::fail(format!("{source}: {error}")))?.answer;
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        prop_assert_eq!(answer, serde_json::json!(wanted), "{}", source);
    }

    #[test]
    fn order_and_equality_are_exact(a in integer(), b in integer()) {
        let world = World::new();
        let source = format!("| a b | a := {a}. b := {b}. {{a < b. a <= b. a = b. a > b. a hash = b hash. a / 7 < (b / 7)}}");
        let answer = world.eval(&source).map_err(|error| TestCaseError::fail(format!("{source}: {error}")))?.answer;
        prop_assert_eq!(answer, serde_json::json!([a < b, a <= b, a == b, a > b, a == b, a < b]), "{}", source);
    }

    #[test]
    fn floats_keep_their_value(bits in any::<u64>(), n in integer()) {
        let x = f64::from_bits(bits);
        prop_assume!(x.is_finite());
        let world = World::new();
        // As exact fractions, floats come back; comparing them with integers is exact.
        let literal = if x == 0.0 { "0.0".to_owned() } else { format!("{x:e}") };
        let literal = if literal.contains('.') { literal } else { literal.replacen('e', ".0e", 1) };
        let source = format!("| x | x := {literal}. {{x asExactFraction asFloat = x. x < {n}. x printString asNumber = x}}");
        let answer = world.eval(&source).map_err(|error| TestCaseError::fail(format!("{source}: {error}")))?.answer;
        // x < n if its ceiling is less, or is n itself without being x.
        let up = BigInt::from_f64(x.ceil()).unwrap();
        let less = up < n || (up == n && x.fract() != 0.0);
        prop_assert_eq!(answer, serde_json::json!([true, less, true]), "{}", source);
    }
}
