//! The parser beside the published grammar: sentences drawn from `grammar.ebnf` parse, print and parse again to the
//! same tree; whatever else comes, the parser answers and does not panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sentences;

use batos_uvm::syntax::{parse_expression, parse_method, parse_slots, print_code, print_slot};
use proptest::prelude::*;
use sentences::{is_beyond_the_grammar, rules, sentence, shape};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, verbose: 0, ..ProptestConfig::default() })]

    #[test]
    fn methods_of_the_grammar_survive_printing(bits in proptest::collection::vec(any::<u8>(), 0..400)) {
        let text = sentence(&rules(), "root", &bits);
        match parse_method(&text) {
            Err(error) => prop_assert!(is_beyond_the_grammar(&error), "{text}\n{error}"),
            Ok(tree) => {
                let printed = print_slot(&tree);
                let again = parse_method(&printed);
                let again = again.map_err(|error| TestCaseError::fail(format!("{text}\n{printed}\n{error}")))?;
                prop_assert_eq!(shape(&tree), shape(&again), "{}\n{}", text, printed);
                prop_assert_eq!(print_slot(&again), printed);
            }
        }
    }

    #[test]
    fn statements_of_the_grammar_survive_printing(bits in proptest::collection::vec(any::<u8>(), 0..400)) {
        let text = sentence(&rules(), "statements", &bits);
        match parse_expression(&text) {
            Err(error) => prop_assert!(is_beyond_the_grammar(&error), "{text}\n{error}"),
            Ok(tree) => {
                let printed = print_code(&tree);
                let again = parse_expression(&printed);
                let again = again.map_err(|error| TestCaseError::fail(format!("{text}\n{printed}\n{error}")))?;
                prop_assert_eq!(shape(&tree), shape(&again), "{}\n{}", text, printed);
            }
        }
    }

    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,200}") {
        let _ = parse_expression(&text);
        let _ = parse_method(&text);
        let _ = parse_slots(&text);
    }

    #[test]
    fn any_tokens_get_an_answer(words in proptest::collection::vec(prop::sample::select(WORDS), 0..60)) {
        for text in [words.join(" "), words.concat()] {
            for error in [parse_expression(&text).err(), parse_method(&text).err(), parse_slots(&text).err()] {
                let Some(error) = error else { continue };
                // The caret is below the text that it speaks of.
                let line = text.lines().nth(error.at.line as usize - 1).unwrap_or_default();
                prop_assert!(error.at.column as usize <= line.chars().count() + 1, "{error}");
                prop_assert!(error.to_string().ends_with('^'));
            }
        }
    }
}

const WORDS: &[&str] = &[
    "a",
    "foo:",
    ":x",
    "+",
    "-",
    "|",
    "||",
    "<-",
    "=",
    "*",
    "*=",
    ":=",
    "^",
    ".",
    ";",
    "(",
    ")",
    "(|",
    "|)",
    "[",
    "]",
    "{",
    "}",
    "#(",
    "#",
    "#a",
    "#a:b:",
    "$",
    "$ ",
    "'",
    "''",
    "'a'",
    "\"",
    "\"c\"",
    "1",
    "-1",
    "1.5",
    "1e3",
    "16rF",
    "1r1",
    "resend",
    "super",
    "self",
    "nil",
    "_Primitive",
    "é",
    "\n",
    "\0",
    "99999999999999999999",
    "1e9999",
    "3r",
    "0r0",
    "1.0e999",
];

#[test]
fn deep_nesting_is_refused_everywhere() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("{", "}"), ("#(", ")"), ("(| a = ", " |)"), ("a b: (", ")"), ("- ", "")]
    {
        for depth in [55, 5_000] {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            if let Err(error) = parse_expression(&text) {
                assert!(depth > 55 || open == "- ", "{depth} × {open}: {error}");
            }
        }
    }
    // A chain is as deep, for whoever walks the tree.
    for link in [" b", " + b", " , (b)"] {
        parse_expression(&format!("a{}", link.repeat(250))).unwrap();
        let error = parse_expression(&format!("a{}", link.repeat(10_000))).unwrap_err();
        assert!(error.message.contains("messages in one expression"), "{error}");
    }
    let heaps = format!("{}a{}", "(".repeat(100), " b b b b b b b)".repeat(100));
    assert!(parse_expression(&heaps).is_err());
    // Many statements are not deep.
    parse_expression(&"a b: c d. ".repeat(5_000)).unwrap();
}

#[test]
fn errors_show_the_place() {
    let error = parse_expression("x := 3.\ny := (4 + .\nz").unwrap_err();
    assert_eq!((error.at.line, error.at.column), (2, 11));
    let text = error.to_string();
    assert_eq!(text, "line 2, column 11: expected an expression but found '.'\n  y := (4 + .\n            ^");
    let error = parse_method("deposit: n = ( balance + )").unwrap_err();
    assert!(error.to_string().contains("expected an expression but found ')'"), "{error}");
    let error = parse_expression(&"x ".repeat(50_000)).unwrap_err();
    assert!(error.message.contains("longer than"), "{error}");
}
