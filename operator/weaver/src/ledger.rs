//! The byte ledger of a pod: what an engine takes of a GPU's memory, what is left for keys and values, and what to change
//! when that is too little.
//!
//! Weights, slots and keys and values are computed exactly. What the engine takes besides (activations while it profiles
//! itself, CUDA's own, graphs) is the soft figure: [`Calibration`] holds an assumption until a start-up log tells it.

use std::fmt;

use crate::engine::{Change, Engine, RANKS};
use crate::engine_log::StartUp;
use crate::model_config::{Model, Quantization};
use crate::units::{Bytes, GIB, MIB};

/// Tokens in a block of the cache (vLLM's `--block-size`): requests take whole blocks.
pub const BLOCK: u64 = 16;

/// What is known of a pool beyond formulas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    /// Bytes of the weights as loaded.
    pub weights: Option<u64>,
    /// Bytes of activations and CUDA's own, at the two settings below.
    pub overhead: u64,
    pub at_tokens: u64,
    pub at_sequences: u64,
    /// Bytes of one CUDA graph.
    pub graph: u64,
}

impl Default for Calibration {
    /// 0.9 GiB at 2048 batched tokens and 16 sequences: what 8 GB cards were seen to need. 9 MiB a graph: 86 graphs took
    /// 0.73 GiB (vllm#39559).
    fn default() -> Self {
        Self { weights: None, overhead: GIB * 9 / 10, at_tokens: 2048, at_sequences: 16, graph: 9 * MIB }
    }
}

impl Calibration {
    /// What an engine with these settings, on a GPU of `gpu` bytes, told when it started. None if its log lacks the two
    /// lines that are needed: what loading the model took, and what is left for the cache.
    pub fn measured(model: &Model, gpu: u64, engine: &Engine, log: &StartUp) -> Option<Self> {
        let loaded = log.loaded?;
        // Tokens are told exactly, bytes in hundredths of GiB.
        let kv = log.kv_tokens.map(|tokens| tokens.saturating_mul(engine.kv_bytes_per_token(model))).or(log.kv_bytes)?;
        let budget = share(log.gpu.unwrap_or(gpu), log.utilization.unwrap_or(engine.utilization));
        let graphs = log.graphs.unwrap_or(0);
        Some(Self {
            weights: Some(loaded.saturating_sub(engine.slot_bytes(model).saturating_mul(engine.max_loras))),
            overhead: budget.saturating_sub(loaded).saturating_sub(kv).saturating_sub(graphs),
            at_tokens: engine.max_num_batched_tokens,
            at_sequences: engine.max_num_seqs,
            graph: log.graphs.and_then(|bytes| bytes.checked_div(engine.graphs())).unwrap_or(Self::default().graph),
        })
    }

    /// Activations move with the batch: the MLP's three intermediates and two hidden states a token in 16 bits, logits and
    /// their sorted copy in 32 bits and once in 16 a sequence.
    fn overhead(&self, model: &Model, engine: &Engine) -> u64 {
        let activations = |tokens: u64, sequences: u64| {
            let token = 2 * (3 * model.intermediate + 2 * model.hidden);
            tokens.saturating_mul(token).saturating_add(sequences.saturating_mul(10 * model.vocabulary))
        };
        let assumed = activations(self.at_tokens, self.at_sequences);
        let wanted = activations(engine.max_num_batched_tokens, engine.max_num_seqs);
        // CUDA's own part stays, however small the batch.
        (self.overhead.saturating_add(wanted)).saturating_sub(assumed).max(self.overhead / 4)
    }
}

fn share(gpu: u64, thousandths: u64) -> u64 {
    u64::try_from(u128::from(gpu) * u128::from(thousandths) / 1000).unwrap_or(u64::MAX)
}

/// Bytes of the smallest GPU of which the utilisation is this much.
fn least_gpu(budget: u64, thousandths: u64) -> u64 {
    u64::try_from((u128::from(budget) * 1000).div_ceil(u128::from(thousandths.max(1)))).unwrap_or(u64::MAX)
}

/// Where a GPU's bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// What the engine may take: the GPU's memory times the utilisation.
    pub budget: u64,
    pub weights: u64,
    /// All slots together.
    pub slots: u64,
    pub overhead: u64,
    pub graphs: u64,
    pub kv_per_token: u64,
}

impl Ledger {
    pub fn new(model: &Model, gpu: u64, engine: &Engine, calibration: &Calibration) -> Self {
        let weights = match engine.quantization {
            Some(quantization) => model.weight_bytes_as(quantization),
            None => calibration.weights.unwrap_or_else(|| model.weight_bytes()),
        };
        Self {
            budget: share(gpu, engine.utilization),
            weights,
            slots: engine.slot_bytes(model).saturating_mul(engine.max_loras),
            overhead: calibration.overhead(model, engine),
            graphs: engine.graphs().saturating_mul(calibration.graph),
            kv_per_token: engine.kv_bytes_per_token(model),
        }
    }

    /// Bytes taken by all but keys and values.
    pub fn taken(&self) -> u64 {
        [self.weights, self.slots, self.overhead, self.graphs].iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Bytes left for keys and values.
    pub fn kv(&self) -> u64 {
        self.budget.saturating_sub(self.taken())
    }

    /// Tokens whose keys and values fit, in whole blocks.
    pub fn kv_tokens(&self) -> u64 {
        self.kv() / (self.kv_per_token * BLOCK) * BLOCK
    }

    /// Bytes missing for a request of `tokens`.
    fn short(&self, tokens: u64) -> u64 {
        let request = tokens.div_ceil(BLOCK).saturating_mul(BLOCK).saturating_mul(self.kv_per_token);
        self.taken().saturating_add(request).saturating_sub(self.budget)
    }
}

/// Whether a pool fits a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    pub gpu: u64,
    pub ledger: Ledger,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fits {
        slots: u64,
        /// Slots that would still leave room for one longest request.
        most_slots: u64,
        /// Tokens of the longest request that is admitted.
        context: u64,
        /// Tokens over all requests.
        kv_tokens: u64,
        /// Longest requests at once, in hundredths.
        concurrency: u64,
    },
    Short {
        /// Bytes missing for one request of the longest context.
        missing: u64,
        /// The fewest and mildest changes that make it fit; none if no setting does.
        remedy: Option<Vec<Change>>,
        /// Bytes of the smallest GPU that takes it as it is.
        least_gpu: u64,
    },
}

/// Holds an engine with these settings against a GPU of `gpu` bytes. As vLLM does, it calls for room for one request of
/// the longest context.
pub fn fit(model: &Model, gpu: u64, engine: &Engine, calibration: &Calibration) -> Fit {
    let ledger = Ledger::new(model, gpu, engine, calibration);
    let context = engine.context(model);
    let verdict = match ledger.short(context) {
        0 => {
            let slot = engine.slot_bytes(model).max(1);
            let spare =
                ledger.budget.saturating_sub(ledger.taken() + context.div_ceil(BLOCK) * BLOCK * ledger.kv_per_token);
            Verdict::Fits {
                slots: engine.max_loras,
                most_slots: engine.max_loras + spare / slot,
                context,
                kv_tokens: ledger.kv_tokens(),
                concurrency: ledger.kv_tokens().saturating_mul(100) / context,
            }
        }
        missing => Verdict::Short {
            missing,
            remedy: remedy(model, gpu, engine, calibration),
            least_gpu: least_gpu(ledger.budget.saturating_add(missing), engine.utilization),
        },
    };
    Fit { gpu, ledger, verdict }
}

/// Each change alone, the mildest first; then all of them one after the other until it fits, less those that were not
/// needed.
fn remedy(model: &Model, gpu: u64, engine: &Engine, calibration: &Calibration) -> Option<Vec<Change>> {
    let fits = |changes: &[Change]| {
        let mut changed = engine.clone();
        changes.iter().for_each(|change| change.apply(&mut changed));
        Ledger::new(model, gpu, &changed, calibration).short(changed.context(model)) == 0
    };
    // How much context is left depends on what else is changed.
    let context = |changes: &[Change], least: u64| {
        let mut changed = engine.clone();
        changes.iter().for_each(|change| change.apply(&mut changed));
        let tokens = Ledger::new(model, gpu, &changed, calibration).kv_tokens() / 256 * 256;
        (least..changed.context(model)).contains(&tokens).then_some(Change::Context(tokens))
    };
    if let Some(change) = context(&[], 4096) {
        return Some(vec![change]);
    }
    let steps = milder(model, engine);
    if let Some(change) = steps.iter().find(|change| fits(std::slice::from_ref(*change))) {
        return Some(vec![change.clone()]);
    }
    let mut changes: Vec<Change> = Vec::new();
    for step in steps {
        // A later value of the same setting replaces the earlier.
        changes.retain(|change| std::mem::discriminant(change) != std::mem::discriminant(&step));
        changes.push(step);
        if !fits(&changes) {
            let Some(shorter) = context(&changes, 2048) else { continue };
            changes.push(shorter);
        }
        for at in (0..changes.len()).rev() {
            let mut fewer = changes.clone();
            fewer.remove(at);
            if fits(&fewer) {
                changes = fewer;
            }
        }
        return Some(changes);
    }
    None
}

/// Settings that take less, what costs users least first.
fn milder(model: &Model, engine: &Engine) -> Vec<Change> {
    let mut steps = Vec::new();
    if !engine.eager {
        steps.push(Change::Eager);
    }
    let below = |values: [u64; 2], now: u64| values.into_iter().filter(move |value| *value < now);
    steps.extend(below([1024, 512], engine.max_num_batched_tokens).map(Change::BatchedTokens));
    steps.extend(below([8, 4], engine.max_num_seqs).map(Change::Sequences));
    if !engine.kv_fp8 {
        steps.push(Change::KvFp8);
    }
    steps.extend((1..engine.max_loras).rev().map(Change::Slots));
    if engine.max_loras > 0 {
        if engine.wraps(model.architecture, "down_proj") {
            steps.push(Change::AttentionOnly);
        }
        steps.extend(RANKS.into_iter().filter(|rank| (8..engine.max_lora_rank).contains(rank)).rev().map(Change::Rank));
    }
    let now = engine.quantization.unwrap_or(model.quantization);
    let smaller = |quantization: &Quantization| model.weight_bytes_as(*quantization) < model.weight_bytes_as(now);
    steps.extend([Quantization::Fp8, Quantization::INT4].into_iter().filter(smaller).map(Change::Quantization));
    steps
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { budget, weights, slots, overhead, graphs, kv_per_token } = &self.ledger;
        let mut line = |name: &str, bytes: u64| writeln!(f, "{name:<28} {}", Bytes(bytes));
        line("GPU", self.gpu)?;
        line("the engine may take", *budget)?;
        line("- weights", *weights)?;
        line("- adapter slots", *slots)?;
        line("- activations, CUDA", *overhead)?;
        line("- CUDA graphs", *graphs)?;
        line("= left for keys and values", self.ledger.kv())?;
        line("  one token takes", *kv_per_token)?;
        match &self.verdict {
            Verdict::Fits { slots, most_slots, context, kv_tokens, concurrency } => write!(
                f,
                "fits: {slots} slots (at most {most_slots}), requests of {context} tokens, {}.{:02} of them at once \
                 ({kv_tokens} tokens)",
                concurrency / 100,
                concurrency % 100
            ),
            Verdict::Short { missing, remedy, least_gpu } => {
                write!(f, "does not fit: {} are missing; ", Bytes(*missing))?;
                match remedy {
                    Some(changes) => {
                        let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
                        write!(f, "it fits with {}", changes.join(" "))
                    }
                    None => write!(f, "no setting fits, a GPU of {} would", Bytes(*least_gpu)),
                }
            }
        }
    }
}
