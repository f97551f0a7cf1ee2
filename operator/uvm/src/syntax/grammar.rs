//! The published grammar as data: `grammar.ebnf`, read, and written again for the engines that keep models to it.

use std::{collections::BTreeMap, fmt::Write, iter::Peekable, str::Chars};

/// The definition of the language.
const SOURCE: &str = include_str!("../../grammar.ebnf");
/// `Grammar::ebnf` of it, generated.
const MODELS: &str = include_str!("../../models.ebnf");
/// From the line that begins so, rules are tokens.
const TOKENS: &str = "# Tokens";
/// A model gets no more blanks and comments in a row: it could go on with them to its last token.
const MAX_BLANKS: u32 = 40;

/// A right-hand side.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Text(String),
    /// One character within, or with `negated` outside, these ranges.
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    Rule(String),
    Sequence(Vec<Part>),
    Choice(Vec<Part>),
    /// `most` is open when absent.
    Repeat {
        part: Box<Part>,
        least: u32,
        most: Option<u32>,
    },
}

/// All rules by name, and in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Grammar {
    pub rules: BTreeMap<String, Part>,
    order: Vec<String>,
    tokens: Vec<String>,
}

/// The grammar of the one method that has this selector, for a server of models; none when no method has.
pub fn of_method(selector: &str) -> Option<String> {
    let is_name = |part: &str| {
        let mut letters = part.chars();
        letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let header = match selector.strip_suffix(':') {
        Some(parts) if parts.split(':').all(is_name) => {
            let part = |part: &str| format!("\"{part}:\" s name");
            parts.split(':').map(part).collect::<Vec<_>>().join(" b ")
        }
        None if is_name(selector) => format!("\"{selector}\""),
        None if !selector.is_empty() && selector.chars().all(|c| "+-*/\\<>=~@%&|,?!".contains(c)) => {
            format!("{} b name", text(selector))
        }
        _ => return None,
    };
    let (_, rest) = MODELS.split_once('\n')?;
    Some(format!("root ::= {header} s \"=\" s \"(\" body \")\"\n{rest}"))
}

/// The grammar of an object literal, for a server of models.
pub fn of_object() -> Option<String> {
    MODELS.split_once('\n').map(|(_, rest)| format!("root ::= object\n{rest}"))
}

impl Grammar {
    /// Reads `grammar.ebnf`.
    pub fn read() -> Result<Self, String> {
        let (mut rules, mut order, mut tokens) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut in_tokens = false;
        for line in SOURCE.lines() {
            in_tokens |= line.starts_with(TOKENS);
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (name, right) = line.split_once(" ::= ").ok_or_else(|| format!("no rule: {line}"))?;
            let part = Reader { chars: right.chars().peekable() }.whole().map_err(|e| format!("{name}: {e}"))?;
            tokens.extend(in_tokens.then(|| name.to_owned()));
            order.push(name.to_owned());
            rules.insert(name.to_owned(), part);
        }
        Ok(Self { rules, order, tokens })
    }

    fn ordered(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.order.iter().filter_map(|name| Some((name.as_str(), self.rules.get(name)?)))
    }

    /// For xgrammar: the same rules, with blanks bounded.
    pub fn ebnf(&self) -> String {
        let rule = |(name, part): (&str, &Part)| format!("{name} ::= {}\n", ebnf(&bounded(name, part), false));
        self.ordered().map(rule).collect()
    }

    /// For llguidance (<https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md>): rules of tokens, tokens as
    /// regular expressions. Its lexer takes the longest match, as ours does.
    pub fn lark(&self) -> Result<String, String> {
        let mut text = String::new();
        for (name, part) in self.ordered() {
            let part = bounded(name, part);
            let line = match (name, self.tokens.iter().any(|token| token == name)) {
                // Folded into `b`, so that blanks in a row are one token.
                ("blank", _) => continue,
                ("s", _) => "s: B?".to_owned(), // a rule: a token is never empty
                (_, true) => format!("{}: /{}/", token(name), self.regex(&part)?),
                ("root", false) => format!("start: {}", self.lark_of(&part, false)?),
                (_, false) => format!("{}: {}", name.replace('-', "_"), self.lark_of(&part, false)?),
            };
            let _ = writeln!(text, "{line}");
        }
        Ok(text)
    }

    fn lark_of(&self, part: &Part, nested: bool) -> Result<String, String> {
        Ok(match part {
            Part::Text(literal) => text(literal),
            Part::Class { .. } => return Err("a class outside of the tokens".to_owned()),
            Part::Rule(name) if self.tokens.contains(name) && name != "s" => token(name),
            Part::Rule(name) => name.replace('-', "_"),
            Part::Sequence(parts) => {
                let parts: Result<Vec<_>, _> = parts.iter().map(|part| self.lark_of(part, true)).collect();
                grouped(parts?.join(" "), nested && parts_of(part) > 1)
            }
            Part::Choice(parts) => {
                let parts: Result<Vec<_>, _> = parts.iter().map(|part| self.lark_of(part, false)).collect();
                grouped(parts?.join(" | "), nested)
            }
            Part::Repeat { part, least, most } => self.lark_of(part, true)? + &suffix(*least, *most),
        })
    }

    fn regex(&self, part: &Part) -> Result<String, String> {
        Ok(match part {
            Part::Text(literal) => literal.chars().map(escaped).collect(),
            Part::Class { ranges, negated } => {
                let range = |(from, to): &(char, char)| match from == to {
                    true => escaped(*from),
                    false => format!("{}-{}", escaped(*from), escaped(*to)),
                };
                format!("[{}{}]", if *negated { "^" } else { "" }, ranges.iter().map(range).collect::<String>())
            }
            Part::Rule(name) => self.regex(self.rules.get(name).ok_or_else(|| format!("no rule {name}"))?)?,
            Part::Sequence(parts) => parts.iter().map(|part| self.regex(part)).collect::<Result<String, _>>()?,
            Part::Choice(parts) => {
                let parts: Result<Vec<_>, _> = parts.iter().map(|part| self.regex(part)).collect();
                format!("({})", parts?.join("|"))
            }
            Part::Repeat { part, least, most } => format!("({}){}", self.regex(part)?, suffix(*least, *most)),
        })
    }
}

/// Only blanks differ from the language.
fn bounded(name: &str, part: &Part) -> Part {
    match part {
        Part::Sequence(parts) if parts.len() == 1 && matches!(name, "s" | "b") => match parts.first() {
            Some(Part::Repeat { part, least, .. }) => {
                Part::Repeat { part: part.clone(), least: *least, most: Some(MAX_BLANKS) }
            }
            _ => part.clone(),
        },
        _ => part.clone(),
    }
}

fn token(name: &str) -> String {
    name.to_uppercase()
}

fn parts_of(part: &Part) -> usize {
    match part {
        Part::Sequence(parts) => parts.len(),
        _ => 1,
    }
}

fn grouped(text: String, group: bool) -> String {
    if group { format!("({text})") } else { text }
}

fn suffix(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (1, Some(1)) => String::new(),
        (0, Some(1)) => "?".to_owned(),
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (least, Some(most)) => format!("{{{least},{most}}}"),
        (least, None) => format!("{{{least},}}"),
    }
}

fn ebnf(part: &Part, nested: bool) -> String {
    match part {
        Part::Text(literal) => text(literal),
        Part::Class { ranges, negated } => {
            let char = |c: char| match c {
                '\n' => "\\n".to_owned(),
                '\t' => "\\t".to_owned(),
                '\\' | ']' | '^' | '-' => format!("\\{c}"),
                c => c.to_string(),
            };
            let range = |(from, to): &(char, char)| match from == to {
                true => char(*from),
                false => format!("{}-{}", char(*from), char(*to)),
            };
            format!("[{}{}]", if *negated { "^" } else { "" }, ranges.iter().map(range).collect::<String>())
        }
        Part::Rule(name) => name.clone(),
        Part::Sequence(parts) => {
            let text = parts.iter().map(|part| ebnf(part, true)).collect::<Vec<_>>().join(" ");
            grouped(text, nested && parts.len() > 1)
        }
        Part::Choice(parts) => {
            grouped(parts.iter().map(|part| ebnf(part, false)).collect::<Vec<_>>().join(" | "), nested)
        }
        Part::Repeat { part, least, most } => ebnf(part, true) + &suffix(*least, *most),
    }
}

fn text(literal: &str) -> String {
    format!("\"{}\"", literal.replace('\\', "\\\\").replace('"', "\\\""))
}

fn escaped(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c.is_alphanumeric() || " '\":=<>~@%&,#_".contains(c) => c.to_string(),
        c => format!("\\{c}"),
    }
}

/// Reads the notation: literals, classes, groups, `*`, `+`, `?`, `|`.
struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn whole(mut self) -> Result<Part, String> {
        let part = self.choice()?;
        match self.chars.next() {
            None => Ok(part),
            Some(c) => Err(format!("{c:?} too many")),
        }
    }

    fn choice(&mut self) -> Result<Part, String> {
        let first = self.sequence()?;
        let mut choices = vec![first];
        while self.chars.next_if_eq(&'|').is_some() {
            choices.push(self.sequence()?);
        }
        Ok(match choices.len() {
            1 => choices.remove(0),
            _ => Part::Choice(choices),
        })
    }

    fn sequence(&mut self) -> Result<Part, String> {
        let mut parts = Vec::new();
        loop {
            while self.chars.next_if_eq(&' ').is_some() {}
            let part = match self.chars.peek() {
                None | Some('|' | ')') => return Ok(Part::Sequence(parts)),
                Some('"') => Part::Text(self.quoted()?),
                Some('[') => self.class()?,
                Some('(') => {
                    self.chars.next();
                    let inner = self.choice()?;
                    self.chars.next_if_eq(&')').ok_or("a group is not closed")?;
                    inner
                }
                Some(_) => {
                    let mut name = String::new();
                    while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '-') {
                        name.push(c);
                    }
                    if name.is_empty() {
                        return Err(format!("{:?} begins nothing", self.chars.peek()));
                    }
                    Part::Rule(name)
                }
            };
            let (least, most) = match self.chars.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                _ => {
                    parts.push(part);
                    continue;
                }
            };
            self.chars.next();
            parts.push(Part::Repeat { part: Box::new(part), least, most });
        }
    }

    fn char(&mut self) -> Result<char, String> {
        let end = || "the line ends too early".to_owned();
        Ok(match self.chars.next().ok_or_else(end)? {
            '\\' => match self.chars.next().ok_or_else(end)? {
                'n' => '\n',
                't' => '\t',
                c => c,
            },
            c => c,
        })
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.chars.next();
        while self.chars.next_if_eq(&'"').is_none() {
            text.push(self.char()?);
        }
        Ok(text)
    }

    fn class(&mut self) -> Result<Part, String> {
        self.chars.next();
        let negated = self.chars.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        while self.chars.next_if_eq(&']').is_none() {
            let from = self.char()?;
            let to = if self.chars.next_if_eq(&'-').is_some() { self.char()? } else { from };
            ranges.push((from, to));
        }
        Ok(Part::Class { ranges, negated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_generated_is_what_the_grammar_says() {
        let grammar = Grammar::read().unwrap_or_else(|e| unreachable!("{e}"));
        let again = "hack/generate makes it";
        assert_eq!(grammar.ebnf(), MODELS, "models.ebnf: {again}");
        assert_eq!(grammar.lark().as_deref(), Ok(include_str!("../../models.lark")), "models.lark: {again}");
    }

    #[test]
    fn the_grammar_of_one_method_has_its_header() {
        for (selector, wanted) in [
            ("size", "root ::= \"size\" s \"=\" s \"(\" body \")\"\n"),
            ("at:put:", "root ::= \"at:\" s name b \"put:\" s name s \"=\" s \"(\" body \")\"\n"),
            ("\\\\", "root ::= \"\\\\\\\\\" b name s \"=\" s \"(\" body \")\"\n"),
        ] {
            let grammar = of_method(selector).unwrap_or_default();
            assert!(grammar.starts_with(wanted), "{grammar}");
            assert_eq!(grammar.lines().count(), MODELS.lines().count());
        }
        for selector in ["", ":", "a:b", "a\":", "naïve", "1", "+a", "a b:"] {
            assert_eq!(of_method(selector), None, "{selector}");
        }
    }
}
