//! A pod as vLLM 0.32 runs it: one loop of steps, two caches of adapters, and what each thing costs.
//!
//! After `v1/core/sched/scheduler.py` (a step takes what runs, then from the queue in order whatever adds no adapter beyond
//! `max_loras`; the rest is passed over), `lora/worker_manager.py` and `lora/model_manager.py` (host cache of
//! `max_cpu_loras`, GPU slots of `max_loras`, both least recently used first; what leaves the host cache leaves its slot; a
//! load activates at once; unloading on the Rust front end empties both). Loads run in the loop and stall all.

use std::collections::VecDeque;

use batos_weaver::{Architecture, Engine as Flags, Model, Quantization};

/// Microseconds. A 3B model in INT4 on an 8 GB card: assumed, not measured; the same for all policies.
pub struct Costs {
    /// A decode step, for each sequence in it, and for each unit of the highest rank in it.
    pub step: u64,
    pub sequence: u64,
    pub rank: u64,
    /// A token of a prompt.
    pub token: u64,
    /// Activating: calls for each module, and bytes a microsecond over PCIe.
    pub activate: u64,
    pub pcie: u64,
    /// Reading into host memory: opening, and bytes a microsecond from memory-backed files, pinned.
    pub read: u64,
    pub disk: u64,
    /// Bytes of an adapter of rank 1.
    pub unit: u64,
    /// Rank for which slots are made.
    pub max_rank: u64,
}

impl Costs {
    pub fn assumed() -> Self {
        // Qwen2.5-3B.
        let model = Model {
            architecture: Architecture::Qwen2,
            layers: 36,
            hidden: 2048,
            intermediate: 11008,
            heads: 16,
            kv_heads: 2,
            head_dim: 128,
            vocabulary: 151_936,
            tied: true,
            longest_context: 32_768,
            quantization: Quantization::INT4,
            stored: None,
        };
        Self {
            step: 15_000,
            sequence: 400,
            rank: 20,
            token: 150,
            activate: 8_000,
            pcie: 10_000,
            read: 20_000,
            disk: 1_500,
            unit: Flags::default().adapter_bytes(&model, 1),
            max_rank: 64,
        }
    }

    /// Seconds that a request of the scenarios' mean length takes in a half full batch.
    pub fn service(&self) -> f64 {
        let step = self.step + self.sequence * SEATS as u64 / 2 + self.rank * 16;
        (272 * self.token + 72 * step) as f64 / 1e6
    }

    pub fn activating(&self, rank: u64) -> u64 {
        self.activate + rank * self.unit / self.pcie
    }

    pub fn reading(&self, rank: u64) -> u64 {
        self.read + rank * self.unit / self.disk
    }
}

/// Sequences of a batch and tokens of a step (`--max-num-seqs`, `--max-num-batched-tokens`).
pub const SEATS: usize = 8;
const BATCHED: u32 = 2048;
/// `--max-cpu-loras`, but never below the slots.
pub const HOST: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// vLLM as it is.
    Lru,
    /// vLLM, but slots go by frequency: evicts the idle adapter with the fewest uses so far.
    Lfu,
    /// S-LoRA's own server.
    Slora,
}

#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub request: usize,
    pub adapter: u32,
    prompt: u32,
    output: u32,
    started: bool,
}

/// What the control plane asks of the loop: drop one, load one.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub adapter: u32,
    pub unload: Option<u32>,
}

#[derive(Debug, Default)]
pub struct Step {
    /// Microseconds.
    pub takes: u64,
    pub first_tokens: Vec<usize>,
    pub finished: Vec<Job>,
    pub loaded: Vec<u32>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub activations: u64,
    pub reads: u64,
    pub started: u64,
}

pub struct Engine {
    pub kind: Kind,
    pub slots: usize,
    pub waiting: VecDeque<Job>,
    pub running: Vec<Job>,
    pub loads: VecDeque<Load>,
    /// Adapters, least recently used first.
    pub gpu: Vec<u32>,
    pub host: Vec<u32>,
    /// Uses by adapter.
    uses: Vec<u64>,
    pub counts: Counts,
    /// S-LoRA: decode steps since the last admission, and what is being fetched ahead.
    decoded: u32,
    ahead: Vec<u32>,
    /// Rank of the slots.
    pub max_rank: u64,
}

impl Engine {
    pub fn new(kind: Kind, slots: usize, max_rank: u64, adapters: usize) -> Self {
        Self {
            kind,
            slots,
            waiting: VecDeque::new(),
            running: Vec::new(),
            loads: VecDeque::new(),
            gpu: Vec::new(),
            host: Vec::new(),
            uses: vec![0; adapters],
            counts: Counts::default(),
            decoded: 0,
            ahead: Vec::new(),
            max_rank,
        }
    }

    pub fn push(&mut self, request: usize, adapter: u32, prompt: u32, output: u32) {
        self.waiting.push_back(Job { request, adapter, prompt, output, started: false });
    }

    /// Requests that it was given and has not answered.
    pub fn outstanding(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    pub fn has_work(&self) -> bool {
        self.outstanding() > 0 || !self.loads.is_empty()
    }

    /// Adapters in the batch.
    fn batch(&self) -> Vec<u32> {
        let mut batch = Vec::new();
        for job in &self.running {
            if !batch.contains(&job.adapter) {
                batch.push(job.adapter);
            }
        }
        batch
    }

    pub fn step(&mut self, ranks: &[u64], costs: &Costs) -> Step {
        if self.kind == Kind::Slora { self.slora_step(ranks, costs) } else { self.vllm_step(ranks, costs) }
    }

    fn vllm_step(&mut self, ranks: &[u64], costs: &Costs) -> Step {
        let mut step = Step::default();
        while let Some(Load { adapter, unload }) = self.loads.pop_front() {
            if let Some(gone) = unload {
                self.gpu.retain(|held| *held != gone);
                self.host.retain(|held| *held != gone);
            }
            step.takes += self.activate(adapter, ranks, costs);
            step.loaded.push(adapter);
        }
        let mut batch = self.batch();
        let mut tokens = BATCHED.saturating_sub(self.running.iter().map(|job| job.prompt.max(1)).sum());
        let mut at = 0;
        while at < self.waiting.len() && self.running.len() < SEATS && tokens > 0 {
            let adapter = self.waiting[at].adapter;
            if !batch.contains(&adapter) {
                if batch.len() >= self.slots {
                    at += 1;
                    continue;
                }
                batch.push(adapter);
            }
            let Some(job) = self.waiting.remove(at) else { break };
            tokens = tokens.saturating_sub(job.prompt);
            self.counts.started += 1;
            self.uses[adapter as usize] += 1;
            self.running.push(job);
        }
        for adapter in batch {
            step.takes += self.activate(adapter, ranks, costs);
        }
        self.forward(BATCHED, ranks, costs, &mut step);
        step
    }

    /// Touches both caches, filling them where they lack the adapter. Microseconds.
    fn activate(&mut self, adapter: u32, ranks: &[u64], costs: &Costs) -> u64 {
        let mut takes = 0;
        let rank = ranks[adapter as usize];
        if touch(&mut self.host, adapter) {
            self.counts.reads += 1;
            takes += costs.reading(rank);
            if self.host.len() > HOST.max(self.slots) {
                let gone = self.host.remove(0);
                self.gpu.retain(|held| *held != gone);
            }
        }
        if !self.gpu.contains(&adapter) {
            self.counts.activations += 1;
            takes += costs.activating(rank);
            if self.gpu.len() >= self.slots {
                let out = match self.kind {
                    Kind::Lfu => {
                        let running = |held: &u32| self.running.iter().any(|job| job.adapter == *held);
                        let idle = (0..self.gpu.len()).filter(|at| !running(&self.gpu[*at]));
                        idle.min_by_key(|at| self.uses[self.gpu[*at] as usize]).unwrap_or(0)
                    }
                    _ => 0,
                };
                self.gpu.remove(out);
            }
        }
        touch(&mut self.gpu, adapter);
        takes
    }

    /// One pass over the batch: up to `prompts` tokens of prompts, and a token for each that is past its own.
    fn forward(&mut self, prompts: u32, ranks: &[u64], costs: &Costs, step: &mut Step) {
        if self.running.is_empty() {
            return;
        }
        let highest = self.running.iter().map(|job| ranks[job.adapter as usize]).max().unwrap_or(0);
        step.takes += costs.step + costs.sequence * self.running.len() as u64 + costs.rank * highest;
        let mut left = prompts;
        for job in &mut self.running {
            if job.prompt > 0 {
                let part = job.prompt.min(left);
                left -= part;
                job.prompt -= part;
                step.takes += costs.token * u64::from(part);
                if job.prompt > 0 {
                    continue;
                }
            }
            // The end of a prompt gives a token too.
            job.output = job.output.saturating_sub(1);
            if !job.started {
                job.started = true;
                step.first_tokens.push(job.request);
            }
        }
        let (done, running) = std::mem::take(&mut self.running).into_iter().partition(|job| job.output == 0);
        (step.finished, self.running) = (done, running);
    }

    /// S-LoRA (`slora/server/router/manager.py`, `req_queue.py`, `model_infer/infer_adapter.py`): requests join in order
    /// and only when the batch is empty or after ten decode steps, as long as adapters (at their own ranks, in the bytes
    /// that the others' slots take) and sequences fit; what is not in the batch is dropped whenever one finishes; adapters
    /// of the next in line are fetched ahead beside the computation. All adapters are in host memory.
    fn slora_step(&mut self, ranks: &[u64], costs: &Costs) -> Step {
        let mut step = Step::default();
        if self.running.is_empty() || self.decoded >= 10 {
            let admitted = self.slora_admit(ranks);
            if admitted > 0 {
                self.decoded = 0;
                for adapter in self.batch() {
                    if !self.gpu.contains(&adapter) {
                        self.counts.activations += 1;
                        let stall =
                            if self.ahead.contains(&adapter) { 0 } else { costs.activating(ranks[adapter as usize]) };
                        step.takes += stall;
                        self.gpu.push(adapter);
                    }
                }
                // The new ones' prompts are a pass of their own.
                let old: Vec<Job> = self.running.drain(..self.running.len() - admitted).collect();
                self.forward(u32::MAX, ranks, costs, &mut step);
                let new = std::mem::replace(&mut self.running, old);
                self.running.extend(new);
                self.slora_drop(&step);
                return step;
            }
        }
        if self.decoded == 5 || self.decoded == 7 {
            self.slora_fetch(ranks);
        }
        self.decoded += 1;
        self.forward(u32::MAX, ranks, costs, &mut step);
        self.slora_drop(&step);
        step
    }

    fn slora_bytes(&self, adapters: &[u32], ranks: &[u64]) -> u64 {
        adapters.iter().map(|adapter| ranks[*adapter as usize]).sum()
    }

    fn slora_admit(&mut self, ranks: &[u64]) -> usize {
        let mut batch = self.batch();
        let room = self.slots as u64 * self.max_rank;
        let mut admitted = 0;
        while let Some(job) = self.waiting.front() {
            let adapter = job.adapter;
            if !batch.contains(&adapter) {
                batch.push(adapter);
            }
            if self.running.len() >= SEATS || self.slora_bytes(&batch, ranks) > room {
                break;
            }
            let Some(job) = self.waiting.pop_front() else { break };
            self.counts.started += 1;
            self.running.push(job);
            admitted += 1;
        }
        admitted
    }

    fn slora_fetch(&mut self, ranks: &[u64]) {
        self.ahead.clear();
        let room = self.slots as u64 * self.max_rank;
        for at in 0..self.waiting.len().min(SEATS) {
            let adapter = self.waiting[at].adapter;
            let mut all = self.gpu.clone();
            all.extend(&self.ahead);
            if !all.contains(&adapter) {
                all.push(adapter);
                if self.slora_bytes(&all, ranks) > room {
                    break;
                }
                self.ahead.push(adapter);
            }
        }
    }

    fn slora_drop(&mut self, step: &Step) {
        if !step.finished.is_empty() {
            let batch = self.batch();
            self.gpu.retain(|held| batch.contains(held));
        }
    }
}

/// Makes `key` the most recently used. True if it was not there.
fn touch(cache: &mut Vec<u32>, key: u32) -> bool {
    let known = cache.iter().position(|held| *held == key);
    if let Some(at) = known {
        cache.remove(at);
    }
    cache.push(key);
    known.is_none()
}
