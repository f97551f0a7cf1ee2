//! Colour, on terminals only, and not for those who set `NO_COLOR`.

use std::{
    fmt::Display,
    io::{IsTerminal, stderr, stdout},
    sync::LazyLock,
};

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

static OUT: LazyLock<bool> = LazyLock::new(|| wanted() && stdout().is_terminal());
static ERR: LazyLock<bool> = LazyLock::new(|| wanted() && stderr().is_terminal());

fn styled(text: impl Display, code: &str, on: bool) -> String {
    match on {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_string(),
    }
}

/// A heading on standard output.
pub fn title(text: impl Display) -> String {
    styled(text, "1", *OUT)
}

/// What is there for reference on standard output.
pub fn aside(text: impl Display) -> String {
    styled(text, "2", *OUT)
}

/// The same on standard error.
pub fn note(text: impl Display) -> String {
    styled(text, "2", *ERR)
}

/// An error on standard error.
pub fn error(text: impl Display) -> String {
    styled(text, "1;31", *ERR)
}
