use async_trait::async_trait;

use crate::Prompt;

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    /// Names the mind in provenance; recorded answers say that they are.
    pub mind: String,
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
}

/// Drafts methods. Calls cost time and money and may be repeated after a crash.
#[async_trait]
pub trait Drafter: Send + Sync + 'static {
    async fn draft(&self, prompt: &Prompt) -> Result<Answer, MindError>;
}

impl Answer {
    /// The method's source: what stands in the first fenced block, else the whole text.
    pub fn source(&self) -> &str {
        let Some((_, fenced)) = self.text.split_once("```") else { return self.text.trim() };
        let body = fenced.split_once('\n').map_or(fenced, |(_language, body)| body);
        body.split_once("```").map_or(body, |(body, _)| body).trim()
    }
}
