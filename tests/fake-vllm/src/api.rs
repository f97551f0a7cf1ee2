//! Routes and the error dialect.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::engine::{Engine, Refusal, now};
use crate::{generate, log, script};

const VERSION: &str = "0.33.0";

pub(crate) fn router(engine: Engine, runtime_updates: bool) -> Router {
    let mut router = Router::new()
        .route("/health", get(health))
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

async fn health(State(engine): State<Engine>) -> StatusCode {
    if engine.is_dead() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
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

fn error_body(status: StatusCode, kind: &str, message: &str, param: Option<&str>) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": param, "code": status.as_u16() } })
}

pub(crate) fn error(status: StatusCode, kind: &str, message: &str, param: Option<&str>) -> Response {
    (status, axum::Json(error_body(status, kind, message, param))).into_response()
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::InvalidUserInput(_) | Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn body(&self) -> Value {
        let (kind, message, param) = match self {
            Self::InvalidUserInput(message) => ("InvalidUserInput", message, None),
            Self::BadRequest { message, param } => ("BadRequestError", message, *param),
            Self::NotFound { message, param } => ("NotFoundError", message, *param),
            Self::Internal(message) => ("InternalServerError", message, None),
        };
        error_body(self.status(), kind, message, param)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status(), axum::Json(self.body())).into_response()
    }
}

/// A request whose form is wrong, before anything looks at what it says.
pub(crate) struct Malformed {
    problem: String,
    param: Option<String>,
}

impl Malformed {
    /// A field that must be there.
    pub(crate) fn missing(field: &str, body: &[u8]) -> Self {
        let items = serde_json::from_slice::<Map<String, Value>>(body).map_or(0, |fields| fields.len());
        let param = format!("body.{field}");
        let problem = format!(
            "{{'type': 'missing', 'loc': '{param}', 'msg': 'Field required', 'input': '<dict of {items} items>'}}"
        );
        Self { problem, param: Some(param) }
    }
}

impl IntoResponse for Malformed {
    fn into_response(self) -> Response {
        let message = format!("1 validation error:\n  {}", self.problem);
        error(StatusCode::BAD_REQUEST, "Bad Request", &message, self.param.as_deref())
    }
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Malformed> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json")) {
        let problem = "Unsupported Media Type: Only 'application/json' is allowed".to_owned();
        return Err(Malformed { problem, param: None });
    }
    serde_json::from_slice(body).map_err(|e| Malformed { problem: e.to_string(), param: Some("body".to_owned()) })
}

/// As in vLLM a plain text, without a content type.
fn plain(text: String) -> Response {
    Response::new(Body::from(text))
}

#[derive(Deserialize)]
struct Load {
    #[serde(default)]
    lora_name: Option<String>,
    #[serde(default)]
    lora_path: Option<String>,
    #[serde(default)]
    load_inplace: bool,
}

async fn load(State(engine): State<Engine>, headers: HeaderMap, body: Bytes) -> Response {
    match parse::<Load>(&headers, &body) {
        Err(malformed) => malformed.into_response(),
        Ok(Load { lora_name: None, .. }) => Malformed::missing("lora_name", &body).into_response(),
        Ok(Load { lora_path: None, .. }) => Malformed::missing("lora_path", &body).into_response(),
        Ok(Load { lora_name: Some(lora_name), lora_path: Some(lora_path), load_inplace }) => {
            match engine.load(&lora_name, &lora_path, load_inplace) {
                Err(refusal) => {
                    log(&format!("not loaded: {lora_name:?} from {lora_path:?}: {refusal:?}"));
                    refusal.into_response()
                }
                Ok(text) => {
                    log(&format!("loaded: {lora_name:?} from {lora_path:?}"));
                    plain(text)
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Unload {
    #[serde(default)]
    lora_name: Option<String>,
}

async fn unload(State(engine): State<Engine>, headers: HeaderMap, body: Bytes) -> Response {
    match parse::<Unload>(&headers, &body) {
        Err(malformed) => malformed.into_response(),
        Ok(Unload { lora_name: None }) => Malformed::missing("lora_name", &body).into_response(),
        Ok(Unload { lora_name: Some(lora_name) }) => match engine.unload(&lora_name) {
            Err(refusal) => refusal.into_response(),
            Ok(text) => {
                log(&format!("unloaded: {lora_name:?}"));
                plain(text)
            }
        },
    }
}

async fn models(State(engine): State<Engine>) -> Response {
    let created = now() as u64;
    let permission = json!({
        "id": format!("modelperm-{created:x}"), "object": "model_permission", "created": created,
        "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true, "allow_search_indices": false,
        "allow_view": true, "allow_fine_tuning": false, "organization": "*", "group": null, "is_blocking": false,
    });
    let card = |id: &str, root: &str, parent: Option<&str>, max_model_len: Option<u32>| {
        json!({
            "id": id, "object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": parent,
            "max_model_len": max_model_len, "permission": [permission],
        })
    };
    let base = engine.base.as_str();
    let mut cards = vec![card(base, &engine.root, None, Some(engine.limits.max_model_len))];
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
    let base = escape(&engine.base);
    for (name, value) in
        [("num_requests_running", engine.running()), ("num_requests_waiting", 0), ("kv_cache_usage_perc", 0)]
    {
        text += &format!("# TYPE vllm:{name} gauge\nvllm:{name}{{engine=\"0\",model_name=\"{base}\"}} {value}.0\n");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=1.0.0; charset=utf-8")], text).into_response()
}
