//! What a client is told when it gets no answer, in OpenAI's shape: `{"error": {message, type, param, code}}`.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("a bearer token is wanted: Authorization: Bearer TOKEN")]
    NoToken,
    #[error("the bearer token is not known here")]
    BadToken,
    #[error(
        "{0} {1}: there is no such route; there are GET /v1/models, POST /v1/chat/completions and POST /v1/completions"
    )]
    NoRoute(String, String),
    #[error("{0}: another method is wanted")]
    NoMethod(String),
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the body is no request: {0}")]
    Malformed(String),
    #[error("the body did not come in time")]
    SlowBody,
    #[error("the model {0:?} does not exist")]
    NoModel(String),
    #[error("{whose} limit is used up: {limit}")]
    Limited { whose: String, limit: String, after: Duration },
    #[error("too many requests wait")]
    Full,
    #[error("no engine was free in {0:?}")]
    Late(Duration),
    #[error("no engine takes the adapter of {facet:?}: {why}")]
    Unloadable { facet: String, why: String },
    #[error("the engines failed that the request was sent to")]
    Broken,
    #[error("the engine has sent nothing for {0:?}")]
    Silent(Duration),
    #[error("the engine broke off its answer")]
    CutOff,
    #[error("no engine answers")]
    NoEngine,
}

impl Failure {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::NoRoute(..) | Self::NoModel(_) => StatusCode::NOT_FOUND,
            Self::NoMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Full | Self::Late(_) | Self::NoEngine => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unloadable { .. } | Self::Broken | Self::CutOff => StatusCode::BAD_GATEWAY,
            Self::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// OpenAI's names where it has some.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoToken | Self::BadToken => "invalid_api_key",
            Self::NoRoute(..) => "unknown_url",
            Self::NoMethod(_) => "method_not_supported",
            Self::TooLarge(_) => "request_too_large",
            Self::Malformed(_) => "invalid_request",
            Self::SlowBody => "request_timeout",
            Self::NoModel(_) => "model_not_found",
            Self::Limited { .. } => "rate_limit_exceeded",
            Self::Full => "queue_full",
            Self::Late(_) => "queue_timeout",
            Self::Unloadable { .. } => "adapter_not_loaded",
            Self::Broken => "engine_failed",
            Self::Silent(_) => "engine_silent",
            Self::CutOff => "engine_cut_off",
            Self::NoEngine => "no_engine",
        }
    }

    /// When it is worth to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { after, .. } => Some(*after),
            Self::Full | Self::Late(_) | Self::NoEngine => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    pub fn body(&self) -> Value {
        let status = self.status();
        let kind = match self {
            Self::NoToken | Self::BadToken => "authentication_error",
            Self::Limited { .. } => "rate_limit_error",
            _ if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let param = matches!(self, Self::NoModel(_)).then_some("model");
        json!({ "error": { "message": self.to_string(), "type": kind, "param": param, "code": self.code() } })
    }
}
