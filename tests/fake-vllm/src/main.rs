//! The fake as a program; `lib.rs` says what it does.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::Parser;
use fake_vllm::{Limits, log, router};

/// vLLM's arguments, as far as they matter here; those about the hardware are taken and have no effect.
#[derive(Debug, Parser)]
#[command(name = "fake-vllm", about = "A strict fake of vLLM's OpenAI server, for tests")]
struct Arguments {
    /// Base model: what /v1/models shows and chats without an adapter are for
    #[arg(value_name = "MODEL", required_unless_present = "model")]
    positional: Option<String>,
    /// The same as MODEL
    #[arg(long, conflicts_with = "positional")]
    model: Option<String>,
    /// What requests call it (default: MODEL)
    #[arg(long)]
    served_model_name: Option<String>,
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
    let limits = Limits {
        max_loras: max_loras as usize,
        max_cpu_loras: max_cpu_loras as usize,
        max_lora_rank: arguments.max_lora_rank,
        max_model_len: arguments.max_model_len,
    };
    let address = (arguments.host, arguments.port);
    let listener =
        tokio::net::TcpListener::bind(address).await.map_err(|e| format!("{}:{}: {e}", address.0, address.1))?;
    let bound = listener.local_addr().map_err(|e| e.to_string())?;
    log(&format!("serving {model} on {bound}, adapters at run time: {updates}"));
    let name = arguments.served_model_name.as_deref().unwrap_or(&model);
    let (router, died) = router(name, &model, limits, updates);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let end = async move {
        let dead = tokio::select! { () = told_to_stop() => false, () = died.notified() => true };
        let _ = stop.send(dead);
    };
    axum::serve(listener, router).with_graceful_shutdown(end).await.map_err(|e| e.to_string())?;
    match stopped.await {
        Ok(true) => Err("the engine has died".to_owned()),
        _ => Ok(()),
    }
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
