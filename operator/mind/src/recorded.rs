//! Recorded answers, for tests and for a tour without a model, and the recorder that makes them.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Answer, Drafter, MindError, Prompt, Usage, looks_secret};

/// Answers by the digest of their request; a request that is there several times has alternatives.
#[derive(Debug, Clone, Default)]
pub struct Recordings {
    answers: BTreeMap<String, Vec<String>>,
}

/// As `spec.mind` of a Universe has it, so that the file's text can stand there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    recorded: Vec<Recording>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    request: String,
    answer: String,
}

impl Recordings {
    /// From pairs of a request's digest and its answer.
    pub fn new(answers: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut recordings = Self::default();
        for (request, answer) in answers {
            recordings.answers.entry(request).or_default().push(answer);
        }
        recordings
    }

    /// Reads `recorded: [{request: digest, answer: text}]`.
    pub fn parse(yaml: &str) -> Result<Self, MindError> {
        let file: File = serde_yaml::from_str(yaml).map_err(|e| MindError::BadRecordings(e.to_string()))?;
        Ok(Self::new(file.recorded.into_iter().map(|r| (r.request, r.answer))))
    }

    fn print(&self) -> Result<String, MindError> {
        let recording = |(request, answers): (&String, &Vec<String>)| {
            let one = |answer: &String| Recording { request: request.clone(), answer: answer.clone() };
            answers.iter().map(one).collect::<Vec<_>>()
        };
        let file = File { recorded: self.answers.iter().flat_map(recording).collect() };
        serde_yaml::to_string(&file).map_err(|e| MindError::BadRecordings(e.to_string()))
    }
}

#[async_trait]
impl Drafter for Recordings {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError> {
        let digest = prompt.digest();
        match self.answers.get(&digest) {
            Some(texts) => Ok(Answer { texts: texts.clone(), mind: "recorded".to_owned(), usage: Usage::default() }),
            None if self.answers.is_empty() => Err(MindError::NoMind),
            None => Err(MindError::NotRecorded { digest, subject: prompt.selector.clone() }),
        }
    }
}

/// Asks another mind and writes down what it answers.
pub struct Recorder<D> {
    inner: D,
    path: PathBuf,
    known: Mutex<Recordings>,
}

impl<D: Drafter> Recorder<D> {
    /// What the file holds already stays, but for requests that are answered anew.
    pub fn open(inner: D, path: &Path) -> Result<Self, MindError> {
        let known = match std::fs::read_to_string(path) {
            Ok(text) => Recordings::parse(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Recordings::default(),
            Err(error) => return Err(MindError::BadRecordings(format!("{}: {error}", path.display()))),
        };
        Ok(Self { inner, path: path.to_owned(), known: Mutex::new(known) })
    }

    fn write(&self, digest: String, texts: &[String]) -> Result<(), MindError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.answers.insert(digest, texts.to_vec());
        let text = known.print()?;
        replace(&self.path, &text).map_err(|e| MindError::BadRecordings(format!("{}: {e}", self.path.display())))
    }
}

#[async_trait]
impl<D: Drafter> Drafter for Recorder<D> {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError> {
        let answer = self.inner.draft(prompt).await?;
        let (selector, digest) = (&prompt.selector, prompt.digest());
        // The prompt itself is not written, but an answer to a prompt with a key is not to be trusted with a file.
        if [&prompt.user, &prompt.system].into_iter().chain(&answer.texts).any(|text| looks_secret(text)) {
            tracing::warn!(selector, digest, "not recorded: a key seems to stand in the request or in the answer");
        } else {
            self.write(digest, &answer.texts)?;
        }
        Ok(answer)
    }
}

/// Either the old file or the whole new one is there, whatever happens.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}
