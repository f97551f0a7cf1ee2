//! Routes and the error dialect.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use crate::engine::{Engine, Refusal, now};
use crate::{generate, log, script};

const VERSION: &str = "0.33.0";

pub(crate) fn router(engine: Engine, runtime_updates: bool) -> Router {
    let mut router = Router::new()
        .route("/health", get(|| async { StatusCode::OK }))
        .route("/version", get(|| async { axum::Json(json!({ "version": VERSION })) }))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completions))
        .route("/fake/script", post(script::append))
        .route("/fake/release", post(script::release))
        .route("/fake/requests", get(script::requests));
    if runtime_updates {
        router = router.route("/v1/load_lora_adapter", post(load)).route("/v1/unload_lora_adapter", post(unload));
    }
    router
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async { detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(from_fn(log_request))
        .with_state(engine)
}

async fn log_request(request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let response = next.run(request).await;
    log(&format!("{line} {}", response.status().as_u16()));
    response
}

/// What the web framework itself says, outside of vLLM's handlers.
fn detail(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(json!({ "detail": text }))).into_response()
}

pub(crate) fn error(status: StatusCode, kind: &str, message: &str, param: Option<&str>) -> Response {
    let body = json!({ "error": { "message": message, "type": kind, "param": param, "code": status.as_u16() } });
    (status, axum::Json(body)).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::InvalidUserInput(message) => error(StatusCode::BAD_REQUEST, "InvalidUserInput", &message, None),
            Self::BadRequest(message) => error(StatusCode::BAD_REQUEST, "BadRequestError", &message, None),
            Self::NotFound { message, param } => error(StatusCode::NOT_FOUND, "NotFoundError", &message, param),
            Self::Internal(message) => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", &message, None),
        }
    }
}

/// A request whose form is wrong, before anything looks at what it says.
pub(crate) struct Malformed(String);

impl IntoResponse for Malformed {
    fn into_response(self) -> Response {
        error(StatusCode::BAD_REQUEST, "Bad Request", &self.0, None)
    }
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Malformed> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Malformed("Unsupported Media Type: Only 'application/json' is allowed".to_owned()));
    }
    serde_json::from_slice(body).map_err(|e| Malformed(e.to_string()))
}

/// As in vLLM a plain text, without a content type.
fn plain(text: String) -> Response {
    Response::new(Body::from(text))
}

#[derive(Deserialize)]
struct Load {
    #[serde(default)]
    lora_name: String,
    #[serde(default)]
    lora_path: String,
    #[serde(default)]
    load_inplace: bool,
}

async fn load(State(engine): State<Engine>, headers: HeaderMap, body: Bytes) -> Response {
    match parse::<Load>(&headers, &body) {
        Err(malformed) => malformed.into_response(),
        Ok(Load { lora_name, lora_path, load_inplace }) => match engine.load(&lora_name, &lora_path, load_inplace) {
            Err(refusal) => {
                log(&format!("not loaded: {lora_name:?} from {lora_path:?}: {refusal:?}"));
                refusal.into_response()
            }
            Ok(text) => {
                log(&format!("loaded: {lora_name:?} from {lora_path:?}"));
                plain(text)
            }
        },
    }
}

#[derive(Deserialize)]
struct Unload {
    #[serde(default)]
    lora_name: String,
}

async fn unload(State(engine): State<Engine>, headers: HeaderMap, body: Bytes) -> Response {
    match parse::<Unload>(&headers, &body) {
        Err(malformed) => malformed.into_response(),
        Ok(Unload { lora_name }) => match engine.unload(&lora_name) {
            Err(refusal) => refusal.into_response(),
            Ok(text) => {
                log(&format!("unloaded: {lora_name:?}"));
                plain(text)
            }
        },
    }
}

async fn models(State(engine): State<Engine>) -> Response {
    let card = |id: &str, root: &str, parent: Option<&str>, max_model_len: Option<u32>| {
        json!({
            "id": id, "object": "model", "created": now() as u64, "owned_by": "vllm", "root": root, "parent": parent,
            "max_model_len": max_model_len, "permission": [],
        })
    };
    let base = engine.base.as_str();
    let mut cards = vec![card(base, base, None, Some(engine.limits.max_model_len))];
    cards.extend(engine.registered().iter().map(|adapter| card(&adapter.name, &adapter.path, Some(base), None)));
    axum::Json(json!({ "object": "list", "data": cards })).into_response()
}

async fn metrics(State(engine): State<Engine>) -> Response {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = "# HELP vllm:lora_requests_info Running stats on lora requests.\n\
                    # TYPE vllm:lora_requests_info gauge\n"
        .to_owned();
    for (adapters, when) in engine.lora_info() {
        let (max, adapters) = (engine.limits.max_loras, escape(&adapters));
        text += &format!(
            "vllm:lora_requests_info{{max_lora=\"{max}\",running_lora_adapters=\"{adapters}\",\
             waiting_lora_adapters=\"{adapters}\"}} {when}\n"
        );
    }
    for name in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"] {
        let base = escape(&engine.base);
        text += &format!("# TYPE vllm:{name} gauge\nvllm:{name}{{engine=\"0\",model_name=\"{base}\"}} 0.0\n");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
