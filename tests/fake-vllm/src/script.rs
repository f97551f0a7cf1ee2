//! What the fake's models answer next, and what they were asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::parse;
use crate::engine::Engine;

/// How one request is answered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    /// One text for each choice; the last one is repeated.
    pub texts: Vec<String>,
    /// `stop` when absent.
    pub finish_reason: Option<String>,
    pub fault: Option<Fault>,
    /// With the fault `status`.
    pub status: Option<u16>,
    /// A header of the fault `status`, in seconds.
    pub retry_after: Option<u64>,
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// An error in vLLM's shape, before anything else.
    Status,
    /// What is told of a request that has not begun when the engine dies.
    Dead,
    /// Never a byte.
    Hang,
    /// Half the text, then the connection breaks.
    Cut,
    /// Half the text, then silence.
    Stall,
    /// Half the text of a stream, and the rest after `POST /fake/release`.
    Wait,
    /// Half the text, then an error in an event, as when the engine dies.
    Error,
    /// What is no JSON.
    Garbage,
    /// Text without end.
    Flood,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    inner: Arc<Mutex<(VecDeque<Step>, Vec<Value>)>>,
    /// True once and for all when those that wait may go on.
    released: Arc<watch::Sender<bool>>,
}

impl Script {
    pub(crate) fn next(&self) -> Option<Step> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }

    pub(crate) async fn released(self) {
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }

    /// Notes a request to a model, whatever becomes of it.
    pub(crate) fn note(&self, path: &str, body: &[u8], ignored: &[String], headers: &HeaderMap) {
        let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        let noted = json!({ "path": path, "body": body, "ignored": ignored, "authorization": authorization });
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.push(noted);
    }
}

pub(crate) async fn append(State(engine): State<Engine>, headers: HeaderMap, body: Bytes) -> Response {
    match parse::<Vec<Step>>(&headers, &body) {
        Err(malformed) => malformed.into_response(),
        Ok(steps) => {
            engine.script.inner.lock().unwrap_or_else(PoisonError::into_inner).0.extend(steps);
            Json(json!({})).into_response()
        }
    }
}

pub(crate) async fn release(State(engine): State<Engine>) -> Response {
    engine.script.released.send_replace(true);
    Json(json!({})).into_response()
}

pub(crate) async fn requests(State(engine): State<Engine>) -> Response {
    let requests = engine.script.inner.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
    Json(requests).into_response()
}
