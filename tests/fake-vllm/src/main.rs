//! A strict fake of vLLM's OpenAI server, as far as LoRA adapters go: for tests of what loads, unloads and addresses
//! them. It takes vLLM's arguments, checks an adapter's files as the engine does, and answers with the status codes and
//! error bodies of **vLLM 0.33** (its Python front end). It computes nothing: a chat is answered with an echo that names
//! the model.
//!
//! | rule | where vLLM has it |
//! |---|---|
//! | adapter routes exist only with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`; else `{"detail":"Not Found"}` | `entrypoints/serve/lora/api_router.py` |
//! | a body that is not `application/json`, or no JSON: 400 `Bad Request` | `validate_json_request`, the handler of validation errors |
//! | name or path empty or missing, name loaded already and not `load_inplace`, name of a base model (since 0.31): 400 `InvalidUserInput`, in this order | `entrypoints/openai/models/serving.py` `_check_load_lora_adapter_request` |
//! | no such directory, or no `adapter_config.json` in it: 404 `NotFoundError`, without the path | `LoRAAdapterNotFoundError`, `sanitize_message` |
//! | any other failure to load: 500 `InternalServerError` (400 before 0.23) | `serving.py` `load_lora_adapter` |
//! | `r`, `lora_alpha`, `target_modules` required; no DoRA, bias, `modules_to_save`; rank at most `--max-lora-rank` | `lora/peft_helper.py` |
//! | `adapter_model.safetensors` there and whole, tensors named `….lora_A.weight` or `….lora_B.weight` | `lora/lora_model.py` `from_local_checkpoint`, `lora/utils.py` |
//! | unload of a name that is not loaded: 404 `NotFoundError`; a known one is only forgotten by name, its weights stay in both caches until others push them out (vllm#54839) | `serving.py`, `lora/worker_manager.py` |
//! | two caches, oldest out first: `--max-cpu-loras` on the host, `--max-loras` on the GPU; a load takes a place in both at once, and a chat reads the files again when the host has lost them | `lora/worker_manager.py` `LRUCacheWorkerLoRAManager.add_adapter` |
//! | `/v1/models`: `root` is the adapter's path, `parent` the base model; it says what is registered, not what is resident | `serving.py` `show_available_models` |
//! | `vllm:lora_requests_info`: one series for each set of adapters that were in flight, its value the time; both labels name the same set | `v1/metrics/loggers.py` |
//! | a chat without a model means the base model; an unknown one is 404 `NotFoundError`, `param` `model` | `serving.py` `check_model` |
//!
//! Not there: streaming (refused with 400), other endpoints, `.bin` and `.pt` weights, downloads (a path that is not
//! there is not found, as behind a closed network), API keys, time.

mod adapter;
mod api;
mod engine;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::Parser;
use engine::{Engine, Limits};

/// vLLM's arguments, as far as they matter here; those about the hardware are taken and have no effect.
#[derive(Debug, Parser)]
#[command(name = "fake-vllm", about = "A strict fake of vLLM's OpenAI server, as far as LoRA adapters go")]
struct Arguments {
    /// Base model: what /v1/models shows and chats without an adapter are for
    #[arg(value_name = "MODEL", required_unless_present = "model")]
    positional: Option<String>,
    /// The same as MODEL
    #[arg(long, conflicts_with = "positional")]
    model: Option<String>,
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    host: IpAddr,
    /// 0 takes a free one, which the first line of the log names
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Adapters at all; --runtime-updates implies it
    #[arg(long)]
    enable_lora: bool,
    /// Routes for adapters, as VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 has it
    #[arg(long)]
    runtime_updates: bool,
    /// Adapters on the GPU
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    max_loras: u32,
    /// Adapters in the host's memory, not fewer than --max-loras (default: as many)
    #[arg(long)]
    max_cpu_loras: Option<u32>,
    /// Rank that an adapter may have
    #[arg(long, default_value_t = 16, value_parser = rank)]
    max_lora_rank: u32,
    /// Tokens of a context; shown by /v1/models
    #[arg(long, default_value_t = 4096)]
    max_model_len: u32,

    #[arg(long, hide = true)]
    enforce_eager: bool,
    #[arg(long, hide = true)]
    gpu_memory_utilization: Option<f64>,
    #[arg(long, hide = true)]
    max_num_seqs: Option<u32>,
    #[arg(long, hide = true)]
    max_num_batched_tokens: Option<u32>,
    #[arg(long, hide = true)]
    kv_cache_dtype: Option<String>,
    #[arg(long, hide = true)]
    dtype: Option<String>,
    #[arg(long, hide = true)]
    quantization: Option<String>,
}

/// The ranks that vLLM's kernels are made for (`config/lora.py`).
const RANKS: [u32; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

fn rank(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(rank) if RANKS.contains(&rank) => Ok(rank),
        _ => Err(format!("one of {RANKS:?}")),
    }
}

/// One line on standard output; nobody reading it is no reason to end.
fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fake-vllm: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let max_loras = arguments.max_loras;
    let max_cpu_loras = arguments.max_cpu_loras.unwrap_or(max_loras);
    if max_cpu_loras < max_loras {
        return Err(format!("--max-cpu-loras {max_cpu_loras} is less than --max-loras {max_loras}"));
    }
    let allowed = std::env::var("VLLM_ALLOW_RUNTIME_LORA_UPDATING")
        .is_ok_and(|value| matches!(value.trim().to_lowercase().as_str(), "1" | "true"));
    let updates = arguments.runtime_updates || (arguments.enable_lora && allowed);
    let model = arguments.model.or(arguments.positional).unwrap_or_default();
    let engine = Engine::new(
        model.clone(),
        Limits {
            max_loras: max_loras as usize,
            max_cpu_loras: max_cpu_loras as usize,
            max_lora_rank: arguments.max_lora_rank,
            max_model_len: arguments.max_model_len,
        },
    );
    let address = (arguments.host, arguments.port);
    let listener =
        tokio::net::TcpListener::bind(address).await.map_err(|e| format!("{}:{}: {e}", address.0, address.1))?;
    let bound = listener.local_addr().map_err(|e| e.to_string())?;
    log(&format!("serving {model} on {bound}, adapters at run time: {updates}"));
    axum::serve(listener, api::router(engine, updates))
        .with_graceful_shutdown(told_to_stop())
        .await
        .map_err(|e| e.to_string())
}

/// The first process of a container has no default action for SIGTERM.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
