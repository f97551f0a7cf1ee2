//! Who may ask.

use std::{fs, path::Path};

use crate::config::ConfigError;

/// Fewer characters than this are guessed.
const SHORTEST: usize = 16;

/// Senders by their tokens, of which only digests are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    senders: Vec<(blake3::Hash, String)>,
}

impl Tokens {
    /// Reads lines of a sender's name and a token, with a blank between; those that begin with `#` are comments. A sender
    /// may have several tokens.
    ///
    /// # Errors
    /// Names the file and the line, never a token.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|error| ConfigError::new(file, error))?;
        Self::parse(&text).map_err(|problem| ConfigError::new(file, problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Self::default();
        for (line, number) in text.lines().zip(1..) {
            let wrong = |problem: &str| Err(format!("line {number}: {problem}"));
            let mut words = line.split_whitespace();
            let (sender, token) = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some(word), ..) if word.starts_with('#') => continue,
                (Some(sender), Some(token), None) => (sender, token),
                _ => return wrong("a sender's name and a token are wanted, with a blank between"),
            };
            if sender.len() > 63 || !sender.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b)) {
                return wrong("a sender's name has 1 to 63 letters, digits and -_.@");
            }
            if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return wrong("a token has at least 16 visible ASCII characters");
            }
            let digest = blake3::hash(token.as_bytes());
            if tokens.senders.iter().any(|(other, _)| *other == digest) {
                return wrong("this token is there already");
            }
            tokens.senders.push((digest, sender.to_owned()));
        }
        match tokens.senders.is_empty() {
            true => Err("there is no token in it".to_owned()),
            false => Ok(tokens),
        }
    }

    /// The sender of a request with this `Authorization`. Takes as long whatever the token: digests are compared, all of
    /// them, each in constant time.
    pub fn sender(&self, authorization: Option<&[u8]>) -> Option<&str> {
        let (scheme, token) = authorization?.split_at_checked("Bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return None;
        }
        let digest = blake3::hash(token.trim_ascii());
        self.senders.iter().fold(None, |found, (known, sender)| if *known == digest { Some(sender) } else { found })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.senders.iter().map(|(_, sender)| sender.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_sender() {
        let tokens = Tokens::parse(
            "# people\nalice sk-0123456789abcdef\n\nbob   sk-fedcba9876543210\nalice other-token-of-hers\n",
        )
        .unwrap();
        for (header, sender) in [
            ("Bearer sk-0123456789abcdef", Some("alice")),
            ("bearer sk-fedcba9876543210", Some("bob")),
            ("Bearer  other-token-of-hers ", Some("alice")),
            ("Bearer sk-0123456789abcdeF", None),
            ("Bearer sk-0123456789abcde", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic sk-0123456789abcdef", None),
            ("sk-0123456789abcdef", None),
            ("Béarer", None),
        ] {
            assert_eq!(tokens.sender(Some(header.as_bytes())), sender, "{header}");
        }
        assert_eq!(tokens.sender(None), None);
    }

    #[test]
    fn a_wrong_line_is_named_and_its_token_is_not_told() {
        let twice = "alice sk-0123456789abcdef\nbob sk-0123456789abcdef";
        for (text, told) in [
            ("alice", "line 1: a sender's name"),
            ("\nalice sk-0123456789abcdef more", "line 2: a sender's name"),
            ("alice secret", "line 1: a token has"),
            ("ali/ce sk-0123456789abcdef", "line 1: a sender's name has"),
            (twice, "line 2: this token"),
            ("# nobody", "no token"),
        ] {
            let error = Tokens::parse(text).unwrap_err();
            assert!(error.contains(told) && !error.contains("secret") && !error.contains("sk-"), "{error}");
        }
    }
}
