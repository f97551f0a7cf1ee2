//! Subjects: `<root>.v1.<universe>.cmd|adm.<object>.<verb>` and `….evt.<object>.<kind>`.

use std::fmt;

/// Which NATS permission guards the subject: `cmd` for senders, `adm` for operator and Architect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessClass {
    Cmd,
    Adm,
}

/// A parsed request subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub root: String,
    pub universe: String,
    pub class: AccessClass,
    /// An object's id or name.
    pub object: String,
    pub verb: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    #[error("subject {0:?} is not <root>.v1.<universe>.cmd|adm.<object>.<verb>")]
    Shape(String),
    #[error("protocol version {0:?} is not spoken here, only v1")]
    Version(String),
    #[error("{0:?} cannot be part of a subject: 1 to 128 letters, digits, '-' or '_'")]
    Token(String),
}

/// Longest name in a subject. NATS closes connections on control lines over 4096 bytes.
const MAX_TOKEN: usize = 128;

fn token(text: &str) -> Result<&str, SubjectError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match (1..=MAX_TOKEN).contains(&text.len()) && text.chars().all(legal) {
        true => Ok(text),
        false => Err(SubjectError::Token(text.chars().take(MAX_TOKEN).collect())),
    }
}

impl Subject {
    pub fn new(root: &str, universe: &str, class: AccessClass, object: &str, verb: &str) -> Result<Self, SubjectError> {
        let own = |text| token(text).map(str::to_owned);
        Ok(Self { root: own(root)?, universe: own(universe)?, class, object: own(object)?, verb: own(verb)? })
    }

    pub fn parse(subject: &str) -> Result<Self, SubjectError> {
        let shape = || SubjectError::Shape(subject.chars().take(256).collect());
        let parts: Vec<&str> = subject.split('.').collect();
        let [root, version, universe, class, object, verb] = parts.as_slice() else { return Err(shape()) };
        if *version != "v1" {
            return Err(SubjectError::Version((*version).to_owned()));
        }
        let class = match *class {
            "cmd" => AccessClass::Cmd,
            "adm" => AccessClass::Adm,
            _ => return Err(shape()),
        };
        Self::new(root, universe, class, object, verb)
    }

    /// What a worker of `universe` subscribes to.
    pub fn wildcard(root: &str, universe: &str, class: AccessClass) -> String {
        format!("{root}.v1.{universe}.{class}.*.*")
    }
}

/// Where events of kind `kind` about an object are published.
pub fn event_subject(root: &str, universe: &str, object: &str, kind: &str) -> String {
    format!("{root}.v1.{universe}.evt.{object}.{kind}")
}

impl fmt::Display for AccessClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cmd => "cmd",
            Self::Adm => "adm",
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.v1.{}.{}.{}.{}", self.root, self.universe, self.class, self.object, self.verb)
    }
}
