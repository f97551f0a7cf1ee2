//! The gateway's configuration, a YAML file: what is wrong is refused with its place.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use batos_weaver::{EnginePod, Limits, Quota, Terms, Unloading};
use serde::Deserialize;

/// One pool of engines and the facets that they serve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The base model, as the engines name it.
    pub model: String,
    pub engine: EngineConfig,
    /// The engines' URLs, without `/v1`.
    pub pods: Vec<String>,
    #[serde(default)]
    pub facets: Vec<Facet>,
    /// A file of bearer tokens. Without it whoever reaches the gateway may ask.
    pub tokens: Option<PathBuf>,
    /// What each sender may ask for.
    #[serde(default)]
    pub sender_limits: LimitsConfig,
    /// A file with the key that the engines want (vLLM's `--api-key`).
    pub engine_key: Option<PathBuf>,
    /// Requests that may wait.
    #[serde(default = "Config::queue")]
    pub queue: usize,
    /// How long one may wait before it is sent to an engine.
    #[serde(default = "Config::wait_seconds")]
    pub wait_seconds: u64,
    /// How long an engine may send nothing of an answer.
    #[serde(default = "Config::silence_seconds")]
    pub silence_seconds: u64,
    /// How long a gateway that stops lets answers go on.
    #[serde(default = "Config::drain_seconds")]
    pub drain_seconds: u64,
    /// Engines that a request is sent to at most, if they fail before their answer begins.
    #[serde(default = "Config::tries")]
    pub tries: u32,
    /// Loads of one pod in a minute: each stalls all that it serves.
    #[serde(default = "Config::loads_per_minute")]
    pub loads_per_minute: u32,
    /// Bodies of requests that are kept at once, in MiB.
    #[serde(default = "Config::memory_mib")]
    pub memory_mib: u32,
}

/// The engines' arguments, all alike.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineConfig {
    /// `--max-loras`
    pub slots: usize,
    /// `--max-cpu-loras`, as many as slots without it.
    pub host_slots: Option<usize>,
    /// `--max-lora-rank`
    #[serde(default = "EngineConfig::max_rank")]
    pub max_rank: u64,
    /// `--max-num-seqs`
    #[serde(default = "EngineConfig::seats")]
    pub seats: u32,
    #[serde(default)]
    pub front_end: FrontEnd,
}

/// What unloading an adapter does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum FrontEnd {
    /// vLLM's usual one: the name is forgotten, the memory is not freed.
    #[default]
    Python,
    /// `VLLM_USE_RUST_FRONTEND=1`: the memory is freed.
    Rust,
}

/// What clients name as `model`: one version of one adapter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facet {
    pub name: String,
    /// The adapter's folder, as the engines see it.
    pub path: String,
    /// Of its content, in hexadecimal. Without it the path stands for the content.
    pub digest: Option<String>,
    pub rank: u64,
    #[serde(default)]
    pub limits: LimitsConfig,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsConfig {
    /// Requests in a minute.
    pub per_minute: Option<u32>,
    /// Requests that wait or are answered.
    pub at_once: Option<u32>,
}

/// Why a file is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct ConfigError {
    pub file: String,
    /// With the place: a line, or a field such as `facets[2].rank`.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(file: &Path, problem: impl ToString) -> Self {
        Self { file: file.display().to_string(), problem: problem.to_string() }
    }
}

impl Config {
    fn queue() -> usize {
        1024
    }

    fn wait_seconds() -> u64 {
        60
    }

    fn silence_seconds() -> u64 {
        300
    }

    fn drain_seconds() -> u64 {
        120
    }

    fn tries() -> u32 {
        3
    }

    fn loads_per_minute() -> u32 {
        Limits::default().loads_per_minute
    }

    fn memory_mib() -> u32 {
        256
    }

    /// Reads and checks a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// Names the file and the place in it.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|error| ConfigError::new(file, error))?;
        let mut config = Self::parse(&text).map_err(|problem| ConfigError::new(file, problem))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        for path in [&mut config.tokens, &mut config.engine_key].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Parses and checks a text; what is wrong is told with its place.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let Self { model, engine, pods, facets, .. } = self;
        if model.is_empty() {
            return Err("model: it is empty; say what the engines serve".to_owned());
        }
        within("engine.slots", engine.slots as u64, 1, 256)?;
        within("engine.hostSlots", engine.host() as u64, engine.slots as u64, 4096)?;
        within("engine.maxRank", engine.max_rank, 1, 512)?;
        within("engine.seats", engine.seats.into(), 1, 65_536)?;
        within("queue", self.queue as u64, 1, 1 << 20)?;
        within("waitSeconds", self.wait_seconds, 1, 3_600)?;
        within("silenceSeconds", self.silence_seconds, 1, 3_600)?;
        within("drainSeconds", self.drain_seconds, 1, 3_600)?;
        within("tries", self.tries.into(), 1, 10)?;
        within("loadsPerMinute", self.loads_per_minute.into(), 1, 60_000)?;
        within("memoryMib", self.memory_mib.into(), 16, 1 << 16)?;
        if pods.is_empty() {
            return Err("pods: there is none; name an engine's URL, such as http://127.0.0.1:8000".to_owned());
        }
        for (at, url) in pods.iter().enumerate() {
            check_url(url).map_err(|problem| format!("pods[{at}]: {url:?} {problem}"))?;
            if let Some(first) = pods.iter().take(at).position(|other| same_url(other, url)) {
                return Err(format!("pods[{at}]: {url:?} is pods[{first}] too"));
            }
        }
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, facet) in facets.iter().enumerate() {
            facet.check(self).map_err(|(field, problem)| format!("facets[{at}].{field}: {problem}"))?;
            if let Some(first) = names.insert(&facet.name, at) {
                return Err(format!("facets[{at}].name: {:?} is facets[{first}] too", facet.name));
            }
        }
        Ok(())
    }

    /// Whether all is alike that is fixed at the start.
    pub(crate) fn starts_like(&self, other: &Self) -> bool {
        let changing = |config: &Self| Self {
            pods: vec![],
            facets: vec![],
            tokens: None,
            sender_limits: LimitsConfig::default(),
            ..config.clone()
        };
        changing(self) == changing(other)
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms {
            limits: Limits { loads_per_minute: self.loads_per_minute, ..Limits::default() },
            unloading: match self.engine.front_end {
                FrontEnd::Python => Unloading::Forgets,
                FrontEnd::Rust => Unloading::Frees,
            },
            queue: self.queue,
            wait: self.wait_seconds * 1_000,
            tries: self.tries,
        }
    }
}

impl EngineConfig {
    fn max_rank() -> u64 {
        16
    }

    fn seats() -> u32 {
        128
    }

    fn host(&self) -> usize {
        self.host_slots.unwrap_or(self.slots)
    }

    pub(crate) fn pod(&self) -> EnginePod {
        EnginePod { slots: self.slots, host: self.host(), seats: self.seats, max_rank: self.max_rank }
    }
}

impl Facet {
    fn check(&self, config: &Config) -> Result<(), (&'static str, String)> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let legal = (1..=63).contains(&self.name.len()) && self.name.chars().all(inner);
        if !legal || self.name.starts_with('-') || self.name.ends_with('-') {
            let problem = "is no name: 1 to 63 of a to z, 0 to 9 and '-', which is not at an end";
            return Err(("name", format!("{:?} {problem}", self.name)));
        }
        if self.name == config.model {
            return Err(("name", format!("{:?} is the base model's", self.name)));
        }
        // The engine takes what is no path for a repository's name, and downloads it.
        if !self.path.starts_with('/') {
            return Err(("path", format!("{:?} is not absolute", self.path)));
        }
        let hexadecimal = |digest: &String| digest.len() >= 8 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(digest) = self.digest.as_ref().filter(|digest| !hexadecimal(digest)) {
            return Err(("digest", format!("{digest:?} is none: at least 8 hexadecimal digits")));
        }
        if !(1..=config.engine.max_rank).contains(&self.rank) {
            return Err((
                "rank",
                format!("{} is not within 1 and engine.maxRank, {}", self.rank, config.engine.max_rank),
            ));
        }
        Ok(())
    }

    /// The adapter's name at the engines. Another version of it has another name, so that neither its weights nor cached
    /// prefixes are taken for this one's.
    pub fn engine_name(&self) -> String {
        let digest = match &self.digest {
            Some(digest) => digest.to_ascii_lowercase(),
            None => blake3::hash(self.path.as_bytes()).to_hex().to_string(),
        };
        format!("{}-{}", self.name, digest.get(..8).unwrap_or(&digest))
    }
}

impl From<LimitsConfig> for Quota {
    fn from(limits: LimitsConfig) -> Self {
        Self { per_minute: limits.per_minute, at_once: limits.at_once }
    }
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("{field}: {value} is not within {least} and {most}")),
    }
}

fn check_url(url: &str) -> Result<(), &'static str> {
    let parsed = reqwest::Url::parse(url).map_err(|_| "is no URL")?;
    match parsed {
        url if !matches!(url.scheme(), "http" | "https") => Err("is not of http or https"),
        url if url.host().is_none() => Err("has no host"),
        url if url.query().is_some() || url.fragment().is_some() => Err("has a query"),
        url if !url.username().is_empty() || url.password().is_some() => Err("has a login; use engineKey"),
        url if url.path() != "/" => Err("has a path; /v1 is added"),
        _ => Ok(()),
    }
}

fn same_url(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
model: base
engine: { slots: 2, maxRank: 16 }
pods: [http://127.0.0.1:8000, http://127.0.0.1:8001/]
facets:
- { name: poet, path: /adapters/poet, rank: 8, limits: { perMinute: 60 } }
- { name: ledger, path: /adapters/ledger, digest: 0123456789ABCDEF, rank: 16 }
";

    #[test]
    fn a_version_of_an_adapter_has_a_name_of_its_own() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!((config.queue, config.engine.pod().host), (1024, 2));
        let names: Vec<String> = config.facets.iter().map(Facet::engine_name).collect();
        assert_eq!(names, ["poet-741174d0", "ledger-01234567"]);
        let moved = Facet { path: "/adapters/poet2".to_owned(), ..config.facets[0].clone() };
        assert_ne!(moved.engine_name(), names[0]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (from, to, told) in [
            ("model: base", "model: ''", "model: it is empty"),
            ("model: base", "modell: base", "unknown field `modell`"),
            ("slots: 2", "slots: 0", "engine.slots: 0 is not within 1 and 256"),
            ("slots: 2", "slots: two", "engine.slots: invalid type: string \"two\""),
            ("slots: 2", "slots: 2, hostSlots: 1", "engine.hostSlots: 1 is not within 2 and 4096"),
            ("slots: 2", "slots: 2, frontEnd: Go", "line 3"),
            ("[http://127.0.0.1:8000, http://127.0.0.1:8001/]", "[]", "pods: there is none"),
            ("http://127.0.0.1:8000,", "http://127.0.0.1:8001,", "pods[1]: \"http://127.0.0.1:8001/\" is pods[0] too"),
            ("http://127.0.0.1:8000,", "ftp://a,", "pods[0]: \"ftp://a\" is not of http or https"),
            ("http://127.0.0.1:8000,", "'http://a/v1',", "pods[0]: \"http://a/v1\" has a path"),
            ("http://127.0.0.1:8000,", "'http://u:p@a',", "has a login"),
            ("name: poet", "name: Poet", "facets[0].name: \"Poet\" is no name"),
            ("name: poet", "name: base", "facets[0].name: \"base\" is the base model's"),
            ("name: poet", "name: ledger", "facets[1].name: \"ledger\" is facets[0] too"),
            ("/adapters/poet", "org/poet", "facets[0].path: \"org/poet\" is not absolute"),
            ("0123456789ABCDEF", "latest", "facets[1].digest: \"latest\" is none"),
            ("rank: 16 }", "rank: 32 }", "facets[1].rank: 32 is not within 1 and engine.maxRank, 16"),
            ("perMinute: 60", "perMinute: -1", "facets[0].limits"),
            ("pods:", "tries: 0\npods:", "tries: 0 is not within 1 and 10"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = Config::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(told), "{to}: {error}");
        }
    }
}
