//! The parser and llguidance, which keeps models to `models.lark`, take the same sentences: what the grammar draws, what
//! the engine lets a model say, what the printer writes. No model, no GPU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../../operator/uvm/tests/sentences/mod.rs"]
mod sentences;
mod trees;

use std::sync::LazyLock;

use batos_uvm::syntax::{parse_method, print_slot};
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokEnv},
};
use proptest::prelude::*;
use sentences::{is_beyond_the_grammar, rules, sentence, shape};

const LARK: &str = include_str!("../../../operator/uvm/models.lark");

const CASES: u32 = 500;

/// A tokenizer whose tokens are the bytes.
static BYTES: LazyLock<TokEnv> = LazyLock::new(ApproximateTokEnv::single_byte_env);

/// An engine at the beginning of a method. Copies of one are cheap, compiling is not.
fn engine() -> Matcher {
    static ENGINE: LazyLock<std::sync::Mutex<Matcher>> = LazyLock::new(|| {
        let factory = ParserFactory::new_simple(&BYTES).unwrap();
        let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(LARK.to_owned())));
        assert_eq!(matcher.get_error(), None);
        matcher.into()
    });
    ENGINE.lock().unwrap().deep_clone()
}

/// Whether the engine would let a model say just this.
fn accepts(text: &str) -> bool {
    let mut engine = engine();
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    engine.validate_tokens(&tokens).unwrap() == tokens.len()
        && engine.consume_tokens(&tokens).is_ok()
        && engine.is_accepting().unwrap()
}

/// What a model that chooses by these bits says: at each byte one of those that the engine allows, an end as soon as it
/// may once the bits are used up.
fn babble(bits: &[u8]) -> Option<String> {
    let mut engine = engine();
    let mut text = Vec::new();
    for at in 0..4000 {
        if engine.is_stopped() || (at >= bits.len() && engine.is_accepting().unwrap()) {
            return String::from_utf8(text).ok();
        }
        let mask = engine.compute_mask_or_eos().unwrap();
        let allowed: Vec<u8> = (0..=127).filter(|byte| mask.is_allowed(u32::from(*byte))).collect();
        let bits = bits.get(at).copied().map(usize::from);
        let is_mark = |byte: &&u8| byte.is_ascii_punctuation();
        let preferred: Vec<&u8> = match (open_quote(&text), bits) {
            // Nothing stays open for long, and nothing is opened once no more is to be said.
            (Some(quote), None) => allowed.iter().filter(|byte| **byte == quote).collect(),
            (Some(quote), Some(bits)) if bits % 2 == 0 => allowed.iter().filter(|byte| **byte == quote).collect(),
            (None, None) => b")]}| (=a".iter().filter(|byte| allowed.contains(byte)).take(1).collect(),
            // Marks as often as letters: else a model says little but names. Few comments.
            (None, Some(bits)) if bits % 2 == 0 => {
                allowed.iter().filter(is_mark).filter(|byte| **byte != b'"').collect()
            }
            (_, Some(_)) => b"abx127 \n\"".iter().filter(|byte| allowed.contains(byte)).collect(),
        };
        let chosen = if preferred.is_empty() { allowed.iter().collect() } else { preferred };
        let byte = **chosen.get(bits.unwrap_or(0) / 2 % chosen.len().max(1))?;
        engine.consume_token(u32::from(byte)).unwrap();
        text.push(byte);
    }
    None
}

/// What ends the string or comment that the text is in.
fn open_quote(text: &[u8]) -> Option<u8> {
    let (mut open, mut bytes) = (None, text.iter());
    while let Some(byte) = bytes.next() {
        match (open, byte) {
            (Some(quote), byte) if *byte == quote => open = None,
            (None, b'\'' | b'"') => open = Some(*byte),
            (None, b'$') => drop(bytes.next()),
            _ => {}
        }
    }
    open
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, verbose: 0, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_takes_what_the_grammar_draws(bits in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = sentence(&rules(), "root", &bits);
        prop_assert!(accepts(&text), "{text}");
    }

    #[test]
    fn the_parser_takes_what_the_engine_lets_a_model_say(bits in proptest::collection::vec(any::<u8>(), 0..300)) {
        let Some(text) = babble(&bits) else { return Ok(()) };
        if let Err(error) = parse_method(&text) {
            prop_assert!(is_beyond_the_grammar(&error), "{text}\n{error}");
        }
    }

    #[test]
    fn the_engine_takes_what_the_printer_writes(bits in proptest::collection::vec(any::<u8>(), 0..300)) {
        let tree = trees::method(&bits);
        let text = print_slot(&tree);
        prop_assert!(accepts(&text), "{text}");
        let again = parse_method(&text);
        let again = again.map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
        prop_assert_eq!(shape(&again), shape(&tree), "{}", text);
    }

    #[test]
    fn the_engine_takes_no_more_than_the_parser(
        bits in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<proptest::sample::Index>(),
        byte in prop::sample::select(&b" .:;|()[]{}#'\"^=-+a1$\n"[..]),
        insert in any::<bool>(),
    ) {
        let mut text = sentence(&rules(), "root", &bits).into_bytes();
        let at = at.index(text.len());
        match insert {
            true => text.insert(at, byte),
            false => text[at] = byte,
        }
        let Ok(text) = String::from_utf8(text) else { return Ok(()) };
        if accepts(&text) && let Err(error) = parse_method(&text) {
            prop_assert!(is_beyond_the_grammar(&error), "{text}\n{error}");
        }
    }
}

/// The tests above would pass with a model that never comes to an end.
#[test]
fn most_of_what_is_begun_ends() {
    let bits =
        |seed: u32| (0..100_u32).map(move |n| (seed.wrapping_mul(747_796_405).wrapping_add(n * n * 2_891) >> 7) as u8);
    let ended: Vec<String> = (0..100).filter_map(|seed| babble(&bits(seed).collect::<Vec<_>>())).collect();
    assert!(ended.len() > 80, "{} of 100", ended.len());
    for wanted in [":=", "#(", "[", "{", "^", ";"] {
        assert!(ended.iter().any(|text| text.contains(wanted)), "nothing said has {wanted:?}: {}", ended.join("\n"));
    }
    let trees: String = (0..100).map(|seed| print_slot(&trees::method(&bits(seed).collect::<Vec<_>>()))).collect();
    for wanted in [" := ", "; ", "[ :", "(| ", "#(", "resend ", "^"] {
        assert!(trees.contains(wanted), "no tree has {wanted:?}");
    }
}

#[test]
fn one_method_of_each_kind_is_taken_and_broken_ones_are_not() {
    for text in [
        "withdraw: n = ( balance: balance - n. ^balance )",
        "area = ( ^width * height )",
        "+ other = ( | sum | sum := OrderedCollection new. sum add: other; yourself )",
        "at: key put: value = ( [ :k | ^k ] value: #(1 $a 'it''s' #foo:bar: (2 nil)) )",
    ] {
        assert!(accepts(text), "{text}");
        parse_method(text).unwrap();
    }
    for text in ["withdraw: n", "x = ( a b: )", "x = ( _Clone )", "x = ( 'open )", "x = ( a ) y", "x [ 1 ]"] {
        assert!(!accepts(text), "{text}");
    }
}
