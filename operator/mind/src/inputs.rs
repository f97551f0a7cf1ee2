//! Messages like those of examples: one example's, with its arguments and the receiver's state before it changed in a few
//! places. Numbers stay between the smallest and the largest that the examples have there, strings and lists between the
//! shortest and the longest, and characters are those that occur there; so the messages mostly stay what the method is
//! for. Widened, they go a little beyond.

use std::collections::BTreeMap;

use batos_covenant::{Example, Wire};
use serde_json::json;

/// Numbers from a seed (SplitMix64): the same inputs on every machine.
struct Draw(u64);

impl Draw {
    /// The seed is a text.
    fn new(seed: &str) -> Self {
        // FNV-1a.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(seed.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n` - 1; 0 when there is nothing.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = (i128::from(high) - i128::from(low)).max(0) + 1;
        let at = i128::from(low) + i128::from(self.next()) % span;
        i64::try_from(at).unwrap_or(low)
    }
}

/// What occurs in one place of the examples.
#[derive(Default)]
struct Seen {
    /// Whether numbers and lengths may go beyond what occurs.
    widened: bool,
    integers: Vec<i64>,
    floats: Vec<f64>,
    strings: Vec<String>,
    characters: Vec<char>,
    /// Lists by how deep they lie.
    lists: Vec<Vec<Vec<Wire>>>,
}

impl Seen {
    fn add(&mut self, value: &Wire, depth: usize) {
        match value {
            Wire::Number(number) => match number.as_i64() {
                Some(n) => self.integers.push(n),
                None => self.floats.extend(number.as_f64()),
            },
            Wire::String(text) => {
                self.strings.push(text.clone());
                self.characters.extend(text.chars());
                self.characters.sort_unstable();
                self.characters.dedup();
            }
            Wire::Array(elements) => {
                if self.lists.len() <= depth {
                    self.lists.resize_with(depth + 1, Vec::new);
                }
                if let Some(lists) = self.lists.get_mut(depth) {
                    lists.push(elements.clone());
                }
                elements.iter().for_each(|element| self.add(element, depth + 1));
            }
            Wire::Null | Wire::Bool(_) | Wire::Object(_) => {}
        }
    }

    fn change(&self, value: &Wire, depth: usize, draw: &mut Draw) -> Wire {
        match value {
            Wire::Null | Wire::Object(_) => value.clone(),
            Wire::Bool(b) => json!(!b),
            Wire::Number(number) => match number.as_i64() {
                Some(n) => json!(self.integer(n, draw)),
                None => json!(self.float(number.as_f64().unwrap_or_default(), draw)),
            },
            Wire::String(text) => json!(self.string(text, draw)),
            Wire::Array(elements) => Wire::Array(self.list(elements, depth, draw)),
        }
    }

    fn integer(&self, n: i64, draw: &mut Draw) -> i64 {
        let (low, high) = (self.integers.iter().min(), self.integers.iter().max());
        let (low, high) = self.widen(*low.unwrap_or(&n), *high.unwrap_or(&n));
        let changed = match draw.below(if self.widened { 4 } else { 3 }) {
            3 => *draw.one_of(&[low, low.saturating_add(1), 1, 2, high]).unwrap_or(&n),
            0 => n.saturating_add(draw.between(-2, 2)),
            1 => *draw.one_of(&self.integers).unwrap_or(&n),
            _ => draw.between(low, high),
        };
        changed.clamp(low, high)
    }

    /// What is never negative, or never 0, stays so.
    fn widen(&self, low: i64, high: i64) -> (i64, i64) {
        match self.widened {
            true => {
                let least = if low < 0 { low.saturating_mul(2) } else { low.min(1) };
                (least, high.saturating_add(high.saturating_abs().max(2)))
            }
            false => (low, high),
        }
    }

    /// A length that is always the same is no accident.
    fn lengths(&self, lengths: impl Iterator<Item = usize> + Clone) -> (usize, usize) {
        let (least, most) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
        if self.widened && least < most { (least.min(1), most + 2) } else { (least, most) }
    }

    fn float(&self, x: f64, draw: &mut Draw) -> f64 {
        let low = self.floats.iter().copied().fold(x, f64::min);
        let high = self.floats.iter().copied().fold(x, f64::max);
        let changed = match draw.below(2) {
            0 => ((x * 10.0).round() + draw.between(-9, 9) as f64) / 10.0,
            _ => *draw.one_of(&self.floats).unwrap_or(&x),
        };
        changed.clamp(low, high)
    }

    fn string(&self, text: &str, draw: &mut Draw) -> String {
        let (least, most) = self.lengths(self.strings.iter().map(|text| text.chars().count()));
        let mut characters: Vec<char> = text.chars().collect();
        let (at, other) = (draw.below(characters.len()), draw.below(characters.len()));
        match draw.below(6) {
            0 => return draw.one_of(&self.strings).cloned().unwrap_or_default(),
            1 if at != other => characters.swap(at, other),
            2 if characters.len() > least => drop(characters.remove(at)),
            3 if characters.len() < most => {
                characters.insert(at, *draw.one_of(&self.characters).unwrap_or(&' '));
            }
            4 if characters.len() < most && !characters.is_empty() => {
                characters.insert(at, *characters.get(other).unwrap_or(&' '));
            }
            _ => {
                if let Some(c) = characters.get_mut(at) {
                    let alike: Vec<char> =
                        self.characters.iter().copied().filter(|other| kind(*other) == kind(*c)).collect();
                    *c = *draw.one_of(&alike).unwrap_or(c);
                }
            }
        }
        characters.into_iter().collect()
    }

    fn list(&self, elements: &[Wire], depth: usize, draw: &mut Draw) -> Vec<Wire> {
        let all = self.lists.get(depth).map_or(&[][..], Vec::as_slice);
        let (least, most) = self.lengths(all.iter().map(Vec::len));
        let mut elements = elements.to_vec();
        let (at, other) = (draw.below(elements.len()), draw.below(elements.len()));
        match draw.below(7) {
            0 => return draw.one_of(all).cloned().unwrap_or_default(),
            1 if at != other => elements.swap(at, other),
            2 if elements.len() > least => drop(elements.remove(at)),
            3 if elements.len() < most => {
                let pool: Vec<&Wire> = all.iter().flatten().collect();
                if let Some(element) = draw.one_of(&pool) {
                    elements.insert(at, (*element).clone());
                }
            }
            4 if !elements.is_empty() && elements.len() < most => {
                elements.extend(elements.get(at).cloned());
            }
            _ => {
                if let Some(element) = elements.get_mut(at) {
                    *element = self.change(element, depth + 1, draw);
                }
            }
        }
        elements
    }
}

/// Letters are exchanged with letters of their case, digits with digits.
fn kind(c: char) -> u8 {
    match c {
        _ if c.is_lowercase() => 0,
        _ if c.is_uppercase() => 1,
        _ if c.is_numeric() => 2,
        _ => 3,
    }
}

/// Draws messages for ever; expects nothing of them.
pub struct Inputs<'a> {
    examples: &'a [Example],
    arguments: Vec<Seen>,
    given: BTreeMap<&'a str, Seen>,
    draw: Draw,
}

impl<'a> Inputs<'a> {
    pub fn new(examples: &'a [Example], seed: &str) -> Self {
        let (mut arguments, mut given): (Vec<Seen>, BTreeMap<&str, Seen>) = Default::default();
        for example in examples {
            let values = &example.send.arguments;
            if arguments.len() < values.len() {
                arguments.resize_with(values.len(), Seen::default);
            }
            arguments.iter_mut().zip(values).for_each(|(seen, value)| seen.add(value, 0));
            example.given.iter().for_each(|(name, value)| given.entry(name).or_default().add(value, 0));
        }
        Self { examples, arguments, given, draw: Draw::new(seed) }
    }

    pub fn widened(mut self) -> Self {
        self.arguments.iter_mut().chain(self.given.values_mut()).for_each(|seen| seen.widened = true);
        self
    }
}

impl Iterator for Inputs<'_> {
    type Item = Example;

    fn next(&mut self) -> Option<Example> {
        let Example { given, send, .. } = self.draw.one_of(self.examples)?;
        let (mut given, mut send) = (given.clone(), send.clone());
        for _ in 0..=self.draw.below(4) {
            let at = self.draw.below(send.arguments.len() + given.len());
            let arguments = send.arguments.iter_mut().zip(&self.arguments);
            let state = given.iter_mut().filter_map(|(name, value)| Some((value, self.given.get(name.as_str())?)));
            if let Some((value, seen)) = arguments.chain(state).nth(at) {
                *value = seen.change(value, 0, &mut self.draw);
            }
        }
        Some(Example { given, send, answers: None, leaves: BTreeMap::new(), hidden: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Example> {
        let example = |balance: i64, names: Wire| json!({ "given": { "balance": balance }, "send": { "selector": "f:with:", "arguments": [balance, names] } });
        let all = [example(3, json!(["ab", "B"])), example(20, json!(["a1"])), example(8, json!([]))];
        all.into_iter().map(|example| serde_json::from_value(example).unwrap()).collect()
    }

    #[test]
    fn messages_stay_like_the_examples() {
        let examples = examples();
        for (widened, most, longest) in [(false, 20, 2), (true, 40, 4)] {
            let inputs = || {
                let inputs = Inputs::new(&examples, "seed");
                if widened { inputs.widened() } else { inputs }
            };
            let mut balances = Vec::new();
            for Example { given, send, .. } in inputs().take(2000) {
                let names = send.arguments[1].as_array().unwrap();
                assert!(names.len() <= longest && names.iter().all(Wire::is_string), "{names:?}");
                balances.extend([&given["balance"], &send.arguments[0]].map(|balance| balance.as_i64().unwrap()));
            }
            assert_eq!(
                (balances.iter().min(), balances.iter().max()),
                (Some(&if widened { 1 } else { 3 }), Some(&most))
            );
            assert!(inputs().take(100).eq(inputs().take(100)), "the same seed, the same messages");
        }
        assert_eq!(Inputs::new(&[], "seed").next(), None);
        let bare: Example = serde_json::from_value(json!({ "send": { "selector": "f:", "arguments": [[]] } })).unwrap();
        let nothing = [bare];
        assert!(Inputs::new(&nothing, "seed").widened().take(100).all(|input| input == nothing[0]));
    }
}
