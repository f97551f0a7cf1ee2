//! An engine's settings, as far as memory depends on them.

use std::collections::BTreeSet;
use std::fmt;

use crate::model_config::{Architecture, Model, Quantization};
use crate::units::decimal;

/// Ranks for which vLLM has kernels: what `--max-lora-rank` takes.
pub const RANKS: [u64; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

/// vLLM's flags. The defaults are vLLM's (0.33), but for the utilisation, which is what 8 GB cards stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// `--max-loras`: adapters on the GPU at once. 0: without `--enable-lora`.
    pub max_loras: u64,
    pub max_lora_rank: u64,
    /// `--lora-target-modules`: only these get buffers. None: all that the model has.
    pub target_modules: Option<BTreeSet<String>>,
    /// Tokens of the longest request. None: as long as the model can.
    pub max_model_len: Option<u64>,
    pub max_num_seqs: u64,
    pub max_num_batched_tokens: u64,
    /// `--kv-cache-dtype fp8`.
    pub kv_fp8: bool,
    /// `--enforce-eager`: no CUDA graphs.
    pub eager: bool,
    /// `--gpu-memory-utilization`, in thousandths.
    pub utilization: u64,
    /// `--quantization` of a checkpoint that is not quantised.
    pub quantization: Option<Quantization>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            max_loras: 1,
            max_lora_rank: 16,
            target_modules: None,
            max_model_len: None,
            max_num_seqs: 128,
            max_num_batched_tokens: 2048,
            kv_fp8: false,
            eager: false,
            utilization: 900,
            quantization: None,
        }
    }
}

/// What the engine packs into one layer: naming one of them names all.
const PACKED: [&[&str]; 2] = [&["qkv_proj", "q_proj", "k_proj", "v_proj"], &["gate_up_proj", "gate_proj", "up_proj"]];

impl Engine {
    /// Reads vLLM's arguments over the defaults: `--max-loras 4`, `--max-loras=4`. Others are not looked at.
    ///
    /// # Errors
    /// Names the argument whose value is none.
    pub fn from_args<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut engine = Self::default();
        let mut args = args.into_iter().peekable();
        while let Some(arg) = args.next() {
            let (flag, mut inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (arg, None),
            };
            let flag = flag.replace('_', "-");
            let mut value = || inline.take().or_else(|| args.next()).ok_or_else(|| format!("{flag} has no value"));
            let number = |text: &str| {
                let number = text.parse::<u64>().ok().filter(|number| (1..=1 << 32).contains(number));
                number.ok_or_else(|| format!("{flag} {text}: a whole number from 1 is wanted"))
            };
            match flag.as_str() {
                "--max-loras" => engine.max_loras = number(value()?)?,
                "--max-lora-rank" => {
                    let rank = number(value()?)?;
                    if !RANKS.contains(&rank) {
                        return Err(format!("{flag} {rank}: one of {RANKS:?} is wanted"));
                    }
                    engine.max_lora_rank = rank;
                }
                "--lora-target-modules" => {
                    let mut names: BTreeSet<String> = BTreeSet::from([value()?.to_owned()]);
                    while let Some(name) = args.next_if(|arg| !arg.starts_with("--")) {
                        names.insert(name.to_owned());
                    }
                    engine.target_modules = Some(names);
                }
                "--max-model-len" => engine.max_model_len = Some(number(value()?)?),
                "--max-num-seqs" => engine.max_num_seqs = number(value()?)?,
                "--max-num-batched-tokens" => engine.max_num_batched_tokens = number(value()?)?,
                "--kv-cache-dtype" => engine.kv_fp8 = value()?.starts_with("fp8"),
                "--enforce-eager" => engine.eager = true,
                "--gpu-memory-utilization" => {
                    let text = value()?;
                    let thousandths = decimal(text, 1000).filter(|share| (1..=1000).contains(share));
                    engine.utilization =
                        thousandths.ok_or_else(|| format!("{flag} {text}: above 0, to 1, is wanted"))?;
                }
                "--quantization" => engine.quantization = (value()? == "fp8").then_some(Quantization::Fp8),
                _ => {}
            }
        }
        Ok(engine)
    }

    /// Whether an adapter's module gets buffers on this engine: else the engine leaves its weights out without a word.
    pub fn wraps(&self, architecture: Architecture, module: &str) -> bool {
        if matches!(module, "embed_tokens" | "lm_head") && !architecture.wraps_embeddings() {
            return false;
        }
        let Some(targets) = &self.target_modules else { return true };
        let packed = PACKED.iter().find(|names| names.contains(&module));
        targets.contains(module) || packed.is_some_and(|names| names.iter().any(|name| targets.contains(*name)))
    }

    /// Bytes of one GPU slot: buffers for A and B of the highest rank at every wrapped module, whatever an adapter uses.
    /// Source: `create_lora_weights` in vLLM's `lora/layers`.
    pub fn slot_bytes(&self, model: &Model) -> u64 {
        self.adapter_bytes(model, self.max_lora_rank)
    }

    /// Bytes of an adapter of `rank` with all modules that are wrapped: what is copied when it is activated.
    pub fn adapter_bytes(&self, model: &Model, rank: u64) -> u64 {
        let wrapped = |module: &str| self.wraps(model.architecture, module);
        let layer: u64 =
            model.linears().iter().filter(|l| wrapped(l.name)).map(|linear| linear.inputs + linear.outputs).sum();
        let tables = ["embed_tokens", "lm_head"].iter().filter(|name| wrapped(name)).count() as u64;
        2 * rank * (layer * model.layers + tables * (model.vocabulary + model.hidden))
    }

    pub fn kv_bytes_per_token(&self, model: &Model) -> u64 {
        model.kv_bytes_per_token(if self.kv_fp8 { 1 } else { 2 })
    }

    /// Tokens of the longest request.
    pub fn context(&self, model: &Model) -> u64 {
        self.max_model_len.unwrap_or(model.longest_context)
    }

    /// CUDA graphs that are captured, by vLLM's default sizes (1, 2, 4, then steps of 8, from 256 of 16, up to twice the
    /// sequences, at most 512): once in pieces, once whole up to the sequences, and both again for batches with LoRA.
    pub fn graphs(&self) -> u64 {
        if self.eager {
            return 0;
        }
        let sizes = |up_to: u64| match up_to {
            0..8 => (up_to.min(4) + 2) / 2,
            8..=256 => 3 + up_to / 8,
            _ => 35 + (up_to - 256) / 16,
        };
        let once = sizes((self.max_num_seqs * 2).min(512)) + sizes(self.max_num_seqs.min(512));
        if self.max_loras > 0 { once * 2 } else { once }
    }
}

/// One setting made smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Context(u64),
    Eager,
    BatchedTokens(u64),
    Sequences(u64),
    KvFp8,
    Slots(u64),
    AttentionOnly,
    Rank(u64),
    Quantization(Quantization),
}

impl Change {
    pub fn apply(&self, engine: &mut Engine) {
        match *self {
            Self::Context(tokens) => engine.max_model_len = Some(tokens),
            Self::Eager => engine.eager = true,
            Self::BatchedTokens(tokens) => engine.max_num_batched_tokens = tokens,
            Self::Sequences(sequences) => engine.max_num_seqs = sequences,
            Self::KvFp8 => engine.kv_fp8 = true,
            Self::Slots(slots) => engine.max_loras = slots,
            Self::AttentionOnly => engine.target_modules = Some(attention()),
            Self::Rank(rank) => engine.max_lora_rank = rank,
            Self::Quantization(quantization) => engine.quantization = Some(quantization),
        }
    }
}

fn attention() -> BTreeSet<String> {
    ["qkv_proj", "o_proj"].map(str::to_owned).into()
}

impl fmt::Display for Change {
    /// As arguments of the engine, where it has such.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context(tokens) => write!(f, "--max-model-len {tokens}"),
            Self::Eager => f.write_str("--enforce-eager"),
            Self::BatchedTokens(tokens) => write!(f, "--max-num-batched-tokens {tokens}"),
            Self::Sequences(sequences) => write!(f, "--max-num-seqs {sequences}"),
            Self::KvFp8 => f.write_str("--kv-cache-dtype fp8"),
            Self::Slots(slots) => write!(f, "--max-loras {slots}"),
            Self::AttentionOnly => f.write_str("--lora-target-modules qkv_proj o_proj"),
            Self::Rank(rank) => write!(f, "--max-lora-rank {rank}"),
            Self::Quantization(quantization) => write!(f, "a checkpoint in {quantization}"),
        }
    }
}
