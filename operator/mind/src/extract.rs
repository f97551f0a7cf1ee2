//! Finds the method, or the object literal, in what a model wrote, whatever it wrote around it.

use batos_uvm::{
    syntax::{SlotNode, SlotNodeKind, parse_slots, print_slot},
    vm::check_method,
};

/// The canonical source of the first method in `text` that has this selector; else what is wrong with the text, in words
/// that a model can use.
pub fn method(text: &str, selector: &str) -> Result<String, String> {
    // What a model thought aloud is no answer.
    let text = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer);
    let (mut wrong, mut broken) = (None, None);
    for candidate in candidates(text, selector) {
        match check_method(candidate) {
            Ok(method) if method.selector == selector => return Ok(method.source),
            Ok(method) => wrong = wrong.or(Some(method.selector)),
            Err(error) => broken = broken.or(Some(error.message)),
        }
    }
    Err(match (wrong, broken) {
        (Some(other), _) => format!("the draft defines {other:?}, not {selector:?}"),
        (None, Some(error)) => format!("the draft does not compile: {error}"),
        (None, None) => format!("the answer holds no method {selector:?}"),
    })
}

/// The canonical text of the first object literal in `text` that has slots; else what is wrong with the text.
pub fn slots(text: &str) -> Result<String, String> {
    let text = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer);
    let mut wrong = None;
    for (at, _) in text.match_indices("(|") {
        for (end, close) in text.match_indices("|)").filter(|(end, _)| *end > at) {
            let Some(candidate) = text.get(at..end + close.len()) else { continue };
            match parse_slots(candidate) {
                Ok(slots) if slots.is_empty() => wrong = wrong.or(Some("the object literal has no slots".to_owned())),
                Ok(slots) => return canonical(&slots),
                Err(error) => wrong = wrong.or(Some(format!("the draft does not compile: {error}"))),
            }
        }
    }
    Err(wrong.unwrap_or_else(|| "the answer holds no object literal (| … |)".to_owned()))
}

fn canonical(slots: &[SlotNode]) -> Result<String, String> {
    let mut printed = Vec::new();
    for slot in slots {
        let source = print_slot(slot);
        if let SlotNodeKind::Method(_) = slot.kind {
            check_method(&source)
                .map_err(|error| format!("method {:?} does not compile: {}", slot.name, error.message))?;
        }
        printed.push(source);
    }
    Ok(format!("(| {} |)", printed.join(".\n")))
}

/// Pieces of the text that may be a method, the most promising ones first.
fn candidates<'a>(text: &'a str, selector: &str) -> Vec<&'a str> {
    let mut found: Vec<&str> = fenced(text).collect();
    let places: Vec<&str> = found.iter().copied().chain([text]).flat_map(|text| headed(text, selector)).collect();
    found.extend(places);
    // Prose that is no method at all would only tell of its own words.
    if found.is_empty() || text.trim_start().starts_with(first_part(selector)) {
        found.push(text.trim());
    }
    found.retain(|candidate| !candidate.is_empty());
    found
}

/// What stands between fences of three backquotes or tildes; the last one may be open.
fn fenced(text: &str) -> impl Iterator<Item = &str> {
    let fence = if text.contains("```") { "```" } else { "~~~" };
    let pieces = text.split(fence).skip(1).step_by(2);
    pieces.map(|piece| {
        let (first, rest) = piece.split_once('\n').unwrap_or(("", piece));
        // The word after the fence names a language; a method may begin there as well.
        if first.contains('=') { piece.trim() } else { rest.trim() }
    })
}

fn first_part(selector: &str) -> &str {
    selector.split_inclusive(':').next().unwrap_or(selector)
}

/// From each place where the selector begins a line's words to the parenthesis that closes the body.
fn headed<'a>(text: &'a str, selector: &str) -> Vec<&'a str> {
    let part = first_part(selector);
    let starts = text.match_indices(part).filter(|(at, _)| {
        let line = text.get(..*at).and_then(|before| before.lines().next_back()).unwrap_or_default();
        let begins_line = *at == 0 || text.get(..*at).is_some_and(|before| before.ends_with('\n'));
        begins_line || !line.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    });
    starts.filter_map(|(at, _)| body_end(text.get(at..)?)).collect()
}

/// The text up to the parenthesis that closes the first one.
fn body_end(text: &str) -> Option<&str> {
    let (mut depth, mut quote) = (0_u32, None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '$' => {
                chars.next();
            }
            None if c == '(' => depth += 1,
            None if c == ')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return text.get(..=at);
                }
            }
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHDRAW: &str = "withdraw: n = ( balance: balance - n. ^balance )";

    #[test]
    fn the_method_is_found_in_whatever_stands_around_it() {
        for text in [
            WITHDRAW.to_owned(),
            format!("  {WITHDRAW}.\n"),
            format!("```\n{WITHDRAW}\n```"),
            format!("Here it is:\n```smalltalk\n{WITHDRAW}\n```\nIt subtracts `n`."),
            format!("~~~\n{WITHDRAW}\n~~~"),
            format!("```{WITHDRAW}```"),
            format!("The method is {WITHDRAW} and it is short (very short)."),
            format!("<think>withdraw: x = ( 1 ) will not do</think>\n{WITHDRAW}"),
            format!("```\ndeposit: n = ( 1 )\n```\nor rather\n```\n{WITHDRAW}\n```"),
            format!("withdraw: n = ( balance -\n\nNo:\n\n{WITHDRAW}"),
            format!("First, withdraw: takes a number.\n- {WITHDRAW}"),
            format!("```\n{WITHDRAW}"),
            WITHDRAW.replace("( balance", "(\n  \"not less) than 0\"\n  balance"),
        ] {
            assert_eq!(method(&text, "withdraw:").as_deref(), Ok(WITHDRAW), "{text}");
        }
        assert_eq!(method("x at: k put: v = ( ^$) -> k )", "at:put:").as_deref(), Ok("at: k put: v = ( ^$) -> k )"));
        assert_eq!(method("`+ other = ( ^1 )`", "+").as_deref(), Ok("+ other = ( ^1 )"));
        assert_eq!(method("size = ( 3 )", "size").as_deref(), Ok("size = ( 3 )"));
    }

    #[test]
    fn slots_are_found_with_objects_within_them() {
        let wanted = Ok("(| recent <- nil.\nkeep: n = ( (| a = 1 |) a ) |)".to_owned());
        for text in [
            "(| recent <- nil. keep: n = ( (| a = 1 |) a ) |)",
            "Here:\n```\n(|\n  recent <- nil.\n  keep: n = ( (| a = 1 |) a ).\n|)\n```\nIt keeps (| b |).",
            "<think>(| other |)</think>(| recent <- nil. keep: n = ( (| a = 1 |) a ) |)",
        ] {
            assert_eq!(slots(text), wanted, "{text}");
        }
        for (text, says) in [
            ("keep: n = ( 1 )", "no object literal"),
            ("(| |)", "no slots"),
            ("(| keep: n = ( 1 |)", "line 1"),
            ("(| keep: n = ( _Clone ) |)", "\"keep:\" does not compile"),
            ("(| a. a |)", "two slots"),
        ] {
            assert!(slots(text).is_err_and(|error| error.contains(says)), "{text}: {:?}", slots(text));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("", "holds no method"),
            ("I cannot do that.", "does not compile"),
            ("```\ndeposit: n = ( 1 )\n```", "defines \"deposit:\""),
            ("withdraw: n from: m = ( 1 )", "defines \"withdraw:from:\""),
            ("```\nwithdraw: n = ( balance - )\n```", "line 1, column 27"),
            ("withdraw: n [ ^n ]", "does not compile"),
            ("withdraw: n = ( _Clone )", "does not compile"),
        ] {
            let error = method(text, "withdraw:").unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
