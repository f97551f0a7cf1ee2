//! Sentences drawn from the published grammar.

use std::collections::BTreeMap;

use batos_uvm::syntax::{
    SyntaxError,
    grammar::{Grammar, Part},
};

pub fn rules() -> BTreeMap<String, Part> {
    Grammar::read().unwrap().rules
}

/// Draws sentences; the bits decide.
struct Draw<'a> {
    rules: &'a BTreeMap<String, Part>,
    bits: &'a [u8],
    next: usize,
    text: String,
}

impl Draw<'_> {
    /// A number below `n`; always 0 once the bits are used up, so that every sentence ends.
    fn below(&mut self, n: usize) -> usize {
        let bits = self.bits.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(bits) % n
    }

    fn draw(&mut self, part: &Part, depth: u32) {
        match part {
            Part::Text(text) => self.text.push_str(text),
            Part::Rule(name) => {
                let part = self.rules.get(name).unwrap_or_else(|| panic!("no rule {name}")).clone();
                self.draw(&part, depth + 1);
            }
            Part::Sequence(parts) => parts.iter().for_each(|part| self.draw(part, depth)),
            Part::Choice(choices) => {
                // The first choice is the simplest.
                let choice = if depth > 40 { 0 } else { self.below(choices.len()) };
                self.draw(&choices[choice], depth);
            }
            Part::Repeat { part, least, most } => {
                let most = most.unwrap_or(3);
                let more = if depth > 40 { 0 } else { self.below((most - least + 1) as usize) as u32 };
                (0..least + more).for_each(|_| self.draw(part, depth));
            }
            Part::Class { ranges: chars, negated: false } => {
                let (from, to) = chars[self.below(chars.len())];
                let span = u32::from(to) - u32::from(from) + 1;
                let c = char::from_u32(u32::from(from) + self.below(span as usize) as u32).unwrap();
                self.text.push(c);
            }
            Part::Class { ranges: chars, negated: true } => {
                let any: Vec<char> = "abz09 .:;|()[]{}$#'\"^-+é日"
                    .chars()
                    .filter(|c| !chars.iter().any(|(from, to)| (from..=to).contains(&c)))
                    .collect();
                let c = any[self.below(any.len())];
                self.text.push(c);
            }
        }
    }
}

pub fn sentence(rules: &BTreeMap<String, Part>, rule: &str, bits: &[u8]) -> String {
    let mut draw = Draw { rules, bits, next: 0, text: String::new() };
    draw.draw(&Part::Rule(rule.to_owned()), 0);
    draw.text
}

/// A tree without places in the source.
pub fn shape(tree: &impl std::fmt::Debug) -> String {
    let text = format!("{tree:?}");
    let mut parts = text.split("Position {");
    let mut shape = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| shape += part.split_once('}').map_or(part, |(_, rest)| rest));
    shape
}

/// What the grammar leaves to the parser.
pub fn is_beyond_the_grammar(error: &SyntaxError) -> bool {
    ["two slots are called", "nested deeper", "messages in one"].iter().any(|text| error.message.contains(text))
}
