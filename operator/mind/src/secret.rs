//! Keys, which nobody must see, and texts that look as if one stood in them.

use std::{fmt, path::Path};

/// A key to a model's server. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The text without the blanks around it; `None` when nothing is left or a header could not carry it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// Reads a file that holds the key alone.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::new(&text).ok_or_else(|| format!("{}: it holds no key", path.display()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without this key: servers like to repeat a wrong one.
    pub(crate) fn strike(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// How the usual keys begin: of model servers, code hosts, clouds, PEM files, web tokens, headers.
const BEGINNINGS: &[&str] = &[
    "sk-",
    "hf_",
    "ghp_",
    "gho_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "-----BEGIN",
    "Bearer ",
];
/// Shorter words are no keys, in characters.
const SHORTEST_KEY: usize = 16;

/// Whether a key seems to stand in the text, so that it must not go into a file.
pub fn looks_secret(text: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| {
        text.match_indices(beginning).any(|(at, _)| {
            let (before, word) = text.split_at(at);
            let begins = !before.ends_with(|c: char| c.is_alphanumeric());
            let rest = word.strip_prefix(beginning).unwrap_or_default();
            let key = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.+/=".contains(*c)).count();
            begins && (beginning.starts_with('-') || beginning.len() + key >= SHORTEST_KEY)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = ApiKey::new(" sk-0123456789abcdef\n");
        assert_eq!(format!("{key:?}"), "Some(ApiKey(…))");
        let key = key.map(|key| key.strike("wrong key sk-0123456789abcdef!"));
        assert_eq!(key.as_deref(), Some("wrong key [key]!"));
        assert_eq!(ApiKey::new(" \n"), None);
        assert_eq!(ApiKey::new("a\nb"), None);
    }

    #[test]
    fn what_looks_like_a_key_is_seen() {
        for secret in [
            "the key is sk-abcdefghijklmnop.",
            "'ghp_0123456789abcdefghij'",
            "-----BEGIN PRIVATE KEY-----",
            "Authorization: Bearer abcdefghijklmnop",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
        for plain in ["task-sk-list", "ask-somebody-for-the-answer", "withdraw: n = ( balance: balance - n )", "sk-1"] {
            assert!(!looks_secret(plain), "{plain}");
        }
    }
}
