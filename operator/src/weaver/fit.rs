//! `batos weaver fit`: the byte ledger of a pool that does not exist yet.

use std::path::PathBuf;

use batos_weaver::{Bytes, Calibration, Engine, Model, Quantization, Verdict, fit};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::{Error, Output};

#[derive(Args)]
#[command(after_help = "Examples:
  batos weaver fit Qwen2.5-3B/config.json --quantization int4 --slots 4
  batos weaver fit Qwen2.5-7B-AWQ/ --context 8192 --slots 2 -o json -- --enforce-eager --max-num-seqs 8
Of a folder the tensors' headers are read too, of a config.json the weights are computed. Everything is exact but what the
engine takes for activations and CUDA, which is assumed: 0.9 GiB at 2048 batched tokens and 16 sequences.
The exit status says whether it fits.")]
pub struct Fit {
    /// config.json of the base model, or the folder that it lies in
    model: PathBuf,
    /// Memory of the GPU
    #[arg(long, default_value = "8GiB", value_name = "BYTES")]
    gpu: Bytes,
    /// Another quantisation of the weights than the model's own
    #[arg(long)]
    quantization: Option<Weights>,
    /// Tokens of the longest request [default: as many as the model can]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 32), value_name = "TOKENS")]
    context: Option<u64>,
    /// Adapters on the GPU at once; 0 is an engine without adapters [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=4096))]
    slots: Option<u64>,
    /// Highest rank of an adapter: one that vLLM has kernels for [default: 16]
    #[arg(long, value_parser = rank)]
    rank: Option<u64>,
    #[arg(short, long, default_value = "text")]
    output: Output,
    /// Further arguments of vLLM, as far as memory depends on them
    #[arg(last = true, value_name = "VLLM ARGUMENT")]
    engine: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Weights {
    /// 16 bits
    None,
    Fp8,
    /// AWQ's and GPTQ's usual form, in groups of 128
    Int4,
}

fn rank(text: &str) -> Result<u64, String> {
    let ranks = batos_weaver::RANKS;
    text.parse().ok().filter(|rank| ranks.contains(rank)).ok_or_else(|| format!("one of {ranks:?} is wanted"))
}

impl Fit {
    pub fn run(self) -> Result<(), Error> {
        let model = match self.model.is_dir() {
            true => Model::open(&self.model)?,
            false => Model::open_config(&self.model)?,
        };
        let usual = Engine::from_args(self.engine.iter().map(String::as_str))?;
        let engine = Engine {
            max_loras: self.slots.unwrap_or(usual.max_loras),
            max_lora_rank: self.rank.unwrap_or(usual.max_lora_rank),
            max_model_len: self.context.or(usual.max_model_len),
            quantization: self.quantization.map(Weights::of).or(usual.quantization),
            ..usual
        };
        let fit = fit(&model, self.gpu.0, &engine, &Calibration::default());
        if !self.output.structured(&told(&fit))? {
            println!("{fit}");
        }
        match fit.verdict {
            Verdict::Fits { .. } => Ok(()),
            Verdict::Short { .. } => Err(format!("{} does not fit", self.model.display()).into()),
        }
    }
}

impl Weights {
    fn of(self) -> Quantization {
        match self {
            Self::None => Quantization::None,
            Self::Fp8 => Quantization::Fp8,
            Self::Int4 => Quantization::INT4,
        }
    }
}

/// All sizes in bytes.
fn told(fit: &batos_weaver::Fit) -> Value {
    let ledger = &fit.ledger;
    let bytes = json!({
        "gpu": fit.gpu, "budget": ledger.budget, "weights": ledger.weights, "slots": ledger.slots,
        "overhead": ledger.overhead, "graphs": ledger.graphs, "kv": ledger.kv(), "kvPerToken": ledger.kv_per_token,
    });
    match &fit.verdict {
        Verdict::Fits { slots, most_slots, context, kv_tokens, concurrency } => json!({
            "fits": true, "bytes": bytes, "slots": slots, "mostSlots": most_slots, "context": context,
            "kvTokens": kv_tokens, "longestRequestsAtOnce": *concurrency as f64 / 100.0,
        }),
        Verdict::Short { missing, remedy, least_gpu } => json!({
            "fits": false, "bytes": bytes, "missing": missing, "leastGpu": least_gpu,
            "remedy": remedy.as_ref().map(|changes| changes.iter().map(ToString::to_string).collect::<Vec<_>>()),
        }),
    }
}
