//! Text to tokens.

use super::{Position, SyntaxError};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `foo`, `self`, `resend`
    Name(String),
    /// `foo:`
    Keyword(String),
    /// `:foo` in a block header or slot list
    Argument(String),
    /// `+`, `<=`, `|` …
    Binary(String),
    Integer(String),
    Float(f64),
    Str(String),
    Symbol(String),
    /// `$a`
    Char(char),
    Assign,
    Caret,
    Period,
    Semicolon,
    Open,
    Close,
    /// `(|`
    OpenSlots,
    /// `|)`
    CloseSlots,
    OpenBlock,
    CloseBlock,
    OpenBrace,
    CloseBrace,
    /// `#(`
    OpenArray,
    End,
}

/// Longest source, in bytes.
pub const MAX_SOURCE: usize = 64 * 1024;
/// Largest exponent of an integer literal: `1e3`.
const MAX_EXPONENT: usize = 4096;
const BINARY: &str = "+-*/\\<>=~@%&|,?!";

pub(super) struct Lexer<'a> {
    source: &'a str,
    rest: &'a str,
    at: Position,
}

pub(super) fn tokens(source: &str) -> Result<Vec<(Token, Position)>, SyntaxError> {
    let mut lexer = Lexer { source, rest: source, at: Position { line: 1, column: 1 } };
    if source.len() > MAX_SOURCE {
        return Err(lexer.error(format!("source of {} bytes is longer than {MAX_SOURCE}", source.len())));
    }
    let mut tokens = Vec::new();
    loop {
        // The end is where the last token ends: that is the place to look at when something is missing.
        let last = lexer.at;
        lexer.skip_blank()?;
        let at = lexer.at;
        match lexer.token()? {
            Token::End => {
                tokens.push((Token::End, last));
                return Ok(tokens);
            }
            token => tokens.push((token, at)),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl<'a> Lexer<'a> {
    fn error(&self, message: String) -> SyntaxError {
        SyntaxError::new(self.source, self.at, message)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        match c {
            '\n' => self.at = Position { line: self.at.line + 1, column: 1 },
            _ => self.at.column += 1,
        }
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            text.chars().for_each(|_| {
                self.next();
            });
        }
        found
    }

    fn take(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let start = self.rest;
        while self.peek().is_some_and(&mut wanted) {
            self.next();
        }
        start.get(..start.len() - self.rest.len()).unwrap_or_default()
    }

    fn skip_blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.take(char::is_whitespace);
            if self.peek() != Some('"') {
                return Ok(());
            }
            let opened = self.error("comment is not closed".to_owned());
            self.next();
            self.take(|c| c != '"');
            self.next().ok_or(opened)?;
        }
    }

    fn token(&mut self) -> Result<Token, SyntaxError> {
        let Some(c) = self.peek() else { return Ok(Token::End) };
        for (text, token) in [
            (":=", Token::Assign),
            ("(|", Token::OpenSlots),
            ("|)", Token::CloseSlots),
            ("#(", Token::OpenArray),
            ("^", Token::Caret),
            (".", Token::Period),
            (";", Token::Semicolon),
            ("(", Token::Open),
            (")", Token::Close),
            ("[", Token::OpenBlock),
            ("]", Token::CloseBlock),
            ("{", Token::OpenBrace),
            ("}", Token::CloseBrace),
        ] {
            if self.eat(text) {
                return Ok(token);
            }
        }
        match c {
            '\'' => self.string().map(Token::Str),
            '#' => self.symbol(),
            '$' => {
                self.next();
                let c = self.next().ok_or_else(|| self.error("a character must follow '$'".to_owned()))?;
                Ok(Token::Char(c))
            }
            ':' => {
                self.next();
                self.take(char::is_whitespace);
                match self.take(is_name) {
                    "" => Err(self.error("a name must follow ':'".to_owned())),
                    name => Ok(Token::Argument(name.to_owned())),
                }
            }
            c if c.is_ascii_digit() => self.number(false),
            '-' if self.rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit()) => {
                self.next();
                self.number(true)
            }
            c if is_name(c) => {
                let name = self.take(is_name).to_owned();
                match self.rest.starts_with(':') && !self.rest.starts_with(":=") && self.eat(":") {
                    true => Ok(Token::Keyword(name + ":")),
                    false => Ok(Token::Name(name)),
                }
            }
            c if BINARY.contains(c) => {
                // `|` closes slot lists and locals; it joins no other operator.
                if c == '|' {
                    self.next();
                    return Ok(Token::Binary("|".to_owned()));
                }
                Ok(Token::Binary(self.operator().to_owned()))
            }
            c => Err(self.error(format!("{c:?} begins nothing"))),
        }
    }

    /// A run of operator characters. A `-` before a digit belongs to the number: `3+-4`.
    fn operator(&mut self) -> &'a str {
        let start = self.rest;
        while let Some(c) = self.peek() {
            let negative = c == '-' && self.rest.len() < start.len() && {
                self.rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit())
            };
            if !BINARY.contains(c) || c == '|' || negative {
                break;
            }
            self.next();
        }
        start.get(..start.len() - self.rest.len()).unwrap_or_default()
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let opened = self.error("string is not closed".to_owned());
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\'') if self.peek() == Some('\'') => {
                    self.next();
                    text.push('\'');
                }
                Some('\'') => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(opened),
            }
        }
    }

    fn symbol(&mut self) -> Result<Token, SyntaxError> {
        self.next();
        match self.peek() {
            Some('\'') => self.string().map(Token::Symbol),
            Some(c) if is_name(c) => Ok(Token::Symbol(self.take(|c| is_name(c) || c == ':').to_owned())),
            Some(c) if BINARY.contains(c) => Ok(Token::Symbol(self.take(|c| BINARY.contains(c)).to_owned())),
            _ => Err(self.error("a symbol needs a name after '#'".to_owned())),
        }
    }

    fn number(&mut self, negative: bool) -> Result<Token, SyntaxError> {
        let sign = if negative { "-" } else { "" };
        let digits = self.take(|c| c.is_ascii_digit()).to_owned();
        if self.rest.starts_with('r') {
            self.next();
            let radix: u32 = digits
                .parse()
                .ok()
                .filter(|r| (2..=36).contains(r))
                .ok_or_else(|| self.error(format!("radix {digits} is not between 2 and 36")))?;
            let text = self.take(|c| c.is_ascii_alphanumeric());
            let value = num_bigint::BigUint::parse_bytes(text.as_bytes(), radix)
                .ok_or_else(|| self.error(format!("{text:?} is no number in radix {radix}")))?;
            let sign = if value.bits() == 0 { "" } else { sign };
            return Ok(Token::Integer(format!("{sign}{value}")));
        }
        let mut text = digits;
        let mut chars = self.rest.chars();
        let is_fraction = chars.next() == Some('.') && chars.next().is_some_and(|c| c.is_ascii_digit());
        if is_fraction {
            self.next();
            text = format!("{text}.{}", self.take(|c| c.is_ascii_digit()));
        }
        let mut chars = self.rest.chars();
        let is_scaled = chars.next() == Some('e')
            && match chars.next() {
                Some('-') => chars.next().is_some_and(|c| c.is_ascii_digit()),
                next => next.is_some_and(|c| c.is_ascii_digit()),
            };
        if is_scaled {
            self.next();
            let minus = if self.eat("-") { "-" } else { "" };
            let exponent = self.take(|c| c.is_ascii_digit());
            if !is_fraction && minus.is_empty() {
                // Exact, as an integer is.
                let Some(zeros) = exponent.parse().ok().filter(|zeros| *zeros <= MAX_EXPONENT) else {
                    return Err(self.error(format!("exponent {exponent} is larger than {MAX_EXPONENT}")));
                };
                let digits = format!("{}{}", text.trim_start_matches('0'), "0".repeat(zeros));
                let is_zero = digits.chars().all(|c| c == '0');
                return Ok(Token::Integer(if is_zero { "0".to_owned() } else { format!("{sign}{digits}") }));
            }
            text = format!("{text}e{minus}{exponent}");
        }
        if !is_fraction && !is_scaled {
            let digits = text.trim_start_matches('0');
            let digits = if digits.is_empty() { "0" } else { digits };
            let sign = if digits == "0" { "" } else { sign };
            return Ok(Token::Integer(format!("{sign}{digits}")));
        }
        match format!("{sign}{text}").parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Float(value)),
            _ => Err(self.error(format!("{text} is no number"))),
        }
    }
}
