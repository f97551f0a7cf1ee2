//! Figures that vLLM logs while it starts, from which a pool's ledger is calibrated.
//!
//! The lines, as 0.7 to 0.33 write them (`gpu_model_runner.py`, `gpu_worker.py`, `kv_cache_utils.py`, before 0.8
//! `worker.py`); each may stand behind a process's name, a level, a time and a place.

use crate::units::{GIB, decimal};

/// All in bytes, but for tokens; None where no line told. Of several GPUs' lines the tightest counts: most loaded, least
/// left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartUp {
    /// Weights and slots.
    pub loaded: Option<u64>,
    /// Left for the cache. A negative figure is 0: that engine ends.
    pub kv_bytes: Option<u64>,
    pub kv_tokens: Option<u64>,
    /// CUDA graphs as estimated before the cache is made (from 0.21 part of what the cache loses).
    pub graphs: Option<u64>,
    /// Peak of activations; engines before 0.8 tell it.
    pub activations: Option<u64>,
    pub gpu: Option<u64>,
    /// Thousandths; engines before 0.8 tell it.
    pub utilization: Option<u64>,
}

/// Longest line that is looked at: lines of figures are short, dumps of settings are not.
const LONGEST_LINE: usize = 2000;

impl StartUp {
    /// Reads what is there, whatever else is in the log.
    pub fn read(log: &str) -> Self {
        let mut told = Self::default();
        for line in log.lines().filter(|line| line.len() <= LONGEST_LINE) {
            told.line(line);
        }
        told
    }

    /// Takes in one line.
    pub fn line(&mut self, line: &str) {
        let most = |old: &mut Option<u64>, new: Option<u64>| *old = (*old).max(new);
        let least = |old: &mut Option<u64>, new: Option<u64>| {
            *old = old.zip(new).map(|(old, new)| old.min(new)).or(*old).or(new);
        };
        most(&mut self.loaded, gib(line, "Model loading took ").or_else(|| gib(line, "model weights take ")));
        most(&mut self.loaded, gib(line, "Loading model weights took "));
        least(&mut self.kv_bytes, gib(line, "Available KV cache memory: "));
        least(&mut self.kv_bytes, gib(line, "memory reserved for KV Cache is "));
        least(&mut self.kv_tokens, whole(line, "KV cache size: "));
        most(&mut self.graphs, gib(line, "Estimated CUDA graph memory: "));
        most(&mut self.activations, gib(line, "PyTorch activation peak memory takes "));
        if let Some(gpu) = gib(line, "total_gpu_memory (") {
            self.gpu = Some(gpu);
            let share = after(line, "gpu_memory_utilization (").and_then(|rest| decimal(digits(rest), 1000));
            self.utilization = share.filter(|share| (1..=1000).contains(share));
        }
    }
}

fn after<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    line.split_once(words).map(|(_, rest)| rest)
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// A figure in GiB behind these words. Old lines say GB and mean GiB.
fn gib(line: &str, words: &str) -> Option<u64> {
    let rest = after(line, words)?;
    let (negative, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let number = digits(rest);
    let unit = rest.get(number.len()..)?.trim_start();
    let bytes = decimal(number, GIB).filter(|_| unit.starts_with("GiB") || unit.starts_with("GB"))?;
    Some(if negative { 0 } else { bytes })
}

/// A whole number with commas behind these words.
fn whole(line: &str, words: &str) -> Option<u64> {
    let rest = after(line, words)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(rest.len());
    rest.get(..end)?.replace(',', "").parse().ok()
}
