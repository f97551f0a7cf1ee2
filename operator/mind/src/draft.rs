//! What drafts methods.

use async_trait::async_trait;

use crate::{Client, ClientError, Endpoint, Input, ModelRequest, Prompt, Usage};

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Alternatives, as the model wrote them.
    pub texts: Vec<String>,
    /// Names the mind in provenance; recorded answers say that they are.
    pub mind: String,
    pub usage: Usage,
}

#[derive(Debug, thiserror::Error)]
pub enum MindError {
    /// The recordings hold no answer to this request.
    #[error("no recorded answer for request {digest} ({subject})")]
    NotRecorded { digest: String, subject: String },
    #[error("recordings: {0}")]
    BadRecordings(String),
    #[error("this universe has no mind: give it one in spec.mind")]
    NoMind,
    #[error("this universe is strict: it makes no methods")]
    Strict,
    /// A change broke a rule of the Codex, and no Architect has answered yet.
    #[error("a change broke the Codex: nothing is made until the Architect answers: batos proposals shows {0}")]
    Halted(String),
    /// The manifest's budget is used up.
    #[error("{text}: ask again in the next {window}")]
    Spent { text: String, window: &'static str },
    /// The prompts and policies in the graph cannot be used.
    #[error("{0}")]
    BadOrgan(String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl MindError {
    /// Whether the same question may be answered later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Client(error) => !matches!(error, ClientError::BadEndpoint(_)),
            _ => false,
        }
    }
}

/// What a call used up.
pub(crate) fn usage_of(asked: &Result<Answer, MindError>) -> Usage {
    match asked {
        Ok(answer) => answer.usage,
        Err(MindError::Client(ClientError::Truncated { usage })) => *usage,
        Err(_) => Usage::default(),
    }
}

/// Drafts methods. Calls cost time and money and may be repeated after a crash.
#[async_trait]
pub trait Drafter: Send + Sync + 'static {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError>;
}

/// A model behind a URL.
#[async_trait]
impl Drafter for Client {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError> {
        let request = ModelRequest {
            input: Input::Chat(prompt.messages()),
            choices: prompt.drafts,
            max_tokens: prompt.max_tokens,
            temperature: prompt.temperature,
            seed: prompt.seed,
            grammar: prompt.grammar(),
            model: prompt.model.clone(),
        };
        // As a stream, so that a server that falls silent is noticed before the whole time is over.
        let answer = self.stream(&request, |_| {}).await?;
        let Endpoint { url, model, .. } = self.endpoint();
        let model = prompt.model.as_ref().unwrap_or(model);
        Ok(Answer { texts: answer.texts, mind: format!("{model} at {url}"), usage: answer.usage })
    }
}

/// Asks the first, and the second for what the first has no answer to.
pub struct Either<A, B>(pub A, pub B);

#[async_trait]
impl<A: Drafter, B: Drafter> Drafter for Either<A, B> {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError> {
        match self.0.draft(prompt).await {
            Err(MindError::NotRecorded { .. } | MindError::NoMind) => self.1.draft(prompt).await,
            other => other,
        }
    }
}
