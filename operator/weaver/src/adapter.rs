//! Whether a LoRA adapter can serve on a pool: told from its `adapter_config.json` and its tensors' header, before an
//! engine is asked to load anything. vLLM 0.32 is the measure (`lora/peft_helper.py`, `lora/lora_model.py`), but for one
//! thing: modules for which the engine has no buffers are refused here, while the engine serves the base model instead.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model_config::{Model, shorten};
use crate::safetensors::{Dtype, Header};
use crate::units::Bytes;

/// What headers say of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// The base model as the adapter's author named it: a repository's name or a path.
    pub base: String,
    /// The highest rank of any module.
    pub rank: u64,
    /// Names such as `q_proj`.
    pub modules: BTreeSet<String>,
    /// Features of PEFT that the engine lacks, in its words.
    pub unsupported: Vec<String>,
    pub dtypes: BTreeSet<Dtype>,
    /// By layer (none: embeddings) and module: inputs and outputs.
    shapes: BTreeMap<(Option<u64>, String), (u64, u64)>,
    /// Bytes of its tensors as stored.
    pub stored_bytes: u64,
    /// Bytes in the engine's host memory: all in 16 bits.
    pub host_bytes: u64,
}

/// What a pool takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepts {
    /// Names of the base model: as the engine serves it, and others that mean the same weights.
    pub bases: Vec<String>,
    pub model: Model,
    pub engine: Engine,
    /// Largest adapter in host memory, in bytes.
    pub largest: u64,
}

/// Why a pool does not take an adapter, each with the figure that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Base {
        adapter: String,
        pool: String,
    },
    Rank {
        adapter: u64,
        pool: u64,
    },
    /// The base model has no such module.
    NoModule(String),
    /// The module is there, but the engine has no buffers for it.
    NotWrapped(String),
    Feature(String),
    Dtype(Dtype),
    Layer {
        layer: u64,
        layers: u64,
    },
    Shape {
        module: String,
        adapter: (u64, u64),
        model: (u64, u64),
    },
    Size {
        adapter: u64,
        pool: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base { adapter, pool } => write!(f, "it is made for {adapter:?}, the pool serves {pool:?}"),
            Self::Rank { adapter, pool } => write!(f, "its rank is {adapter}, the pool's slots are for {pool}"),
            Self::NoModule(name) => write!(f, "the base model has no module {name:?}"),
            Self::NotWrapped(name) => write!(f, "the pool has no buffers for its module {name:?}"),
            Self::Feature(name) => write!(f, "the engine does not support {name}"),
            Self::Dtype(dtype) => write!(f, "its tensors are {dtype}, not float32, float16 or bfloat16"),
            Self::Layer { layer, layers } => write!(f, "it has layer {layer}, the base model has {layers} layers"),
            Self::Shape { module, adapter: (a, b), model: (c, d) } => {
                write!(f, "its {module} goes from {a} to {b}, the base model's from {c} to {d}")
            }
            Self::Size { adapter, pool } => {
                write!(f, "it takes {}, at most {} are taken", Bytes(*adapter), Bytes(*pool))
            }
        }
    }
}

impl Adapter {
    /// Reads an adapter's configuration and header. `place` names the adapter in errors.
    ///
    /// # Errors
    /// `Json`, `Missing` and `Range` for the configuration, `Tensor` for a tensor that is none of an adapter's, or lacks
    /// its other half, or has another rank than its configuration tells.
    pub fn parse(place: &str, config: &[u8], header: &Header) -> Result<Self> {
        let config: Map<String, Value> = serde_json::from_slice(config)
            .map_err(|e| Error::Json { place: place.to_owned(), problem: e.to_string() })?;
        for field in ["r", "lora_alpha", "target_modules"] {
            if !config.contains_key(field) {
                return Err(Error::Missing { place: place.to_owned(), field });
            }
        }
        let config = Config { place, config: &config };
        let rank = config.rank()?;
        let halves = halves(place, header)?;
        let mut shapes = BTreeMap::new();
        let mut elements = 0u64;
        for ((layer, module), [a, b]) in &halves {
            let wrong =
                |problem: String| Error::Tensor { place: place.to_owned(), tensor: name(*layer, module), problem };
            let (Some((a_rank, inputs)), Some((b_rank, outputs))) = (*a, *b) else {
                return Err(wrong(format!("lora_{} is missing", if a.is_none() { "A" } else { "B" })));
            };
            if a_rank != b_rank || a_rank > rank || a_rank == 0 {
                return Err(wrong(format!("rank {a_rank} in A, {b_rank} in B, at most {rank} by the configuration")));
            }
            // Each is a tensor of the file, so the products fit; the sum may not, of a file that claims exabytes.
            elements = elements.saturating_add(inputs.saturating_add(outputs).saturating_mul(a_rank));
            shapes.insert((*layer, module.clone()), (inputs, outputs));
        }
        Ok(Self {
            base: config.text("base_model_name_or_path"),
            rank,
            modules: shapes.keys().map(|(_, module)| module.clone()).collect(),
            unsupported: config.unsupported(),
            dtypes: header.tensors.values().map(|tensor| tensor.dtype).collect(),
            shapes,
            stored_bytes: header.bytes(),
            host_bytes: elements.saturating_mul(2),
        })
    }

    /// All reasons why the pool does not take the adapter; none if it does.
    pub fn refusals(&self, pool: &Accepts) -> Vec<Refusal> {
        let Accepts { bases, model, engine, largest } = pool;
        let mut refusals = Vec::new();
        if !bases.iter().any(|base| same_base(base, &self.base)) {
            let pool = bases.first().cloned().unwrap_or_default();
            refusals.push(Refusal::Base { adapter: shorten(&self.base), pool });
        }
        if self.rank > engine.max_lora_rank {
            refusals.push(Refusal::Rank { adapter: self.rank, pool: engine.max_lora_rank });
        }
        refusals.extend(self.unsupported.iter().cloned().map(Refusal::Feature));
        let floats = |dtype: &Dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16);
        refusals.extend(self.dtypes.iter().copied().filter(|dtype| !floats(dtype)).map(Refusal::Dtype));
        let linears = model.linears();
        let mut told = HashSet::new();
        for ((layer, module), shape) in &self.shapes {
            // The embedding's A looks tokens up, the head's B makes them.
            let wanted = match module.as_str() {
                "embed_tokens" => Some((model.vocabulary, model.hidden)),
                "lm_head" => Some((model.hidden, model.vocabulary)),
                module => linears.iter().find(|linear| linear.name == module).map(|l| (l.inputs, l.outputs)),
            };
            let refusal = match (layer, wanted) {
                (_, None) => Refusal::NoModule(shorten(module)),
                _ if !engine.wraps(model.architecture, module) => Refusal::NotWrapped(module.clone()),
                (Some(layer), _) if *layer >= model.layers => Refusal::Layer { layer: *layer, layers: model.layers },
                (_, Some(model)) if model != *shape => {
                    Refusal::Shape { module: module.clone(), adapter: *shape, model }
                }
                _ => continue,
            };
            // What is wrong with a module is so in each layer, and is told once.
            if told.insert((module, std::mem::discriminant(&refusal))) {
                refusals.push(refusal);
            }
        }
        if self.host_bytes > *largest {
            refusals.push(Refusal::Size { adapter: self.host_bytes, pool: *largest });
        }
        refusals
    }
}

fn name(layer: Option<u64>, module: &str) -> String {
    layer.map_or_else(|| module.to_owned(), |layer| format!("layers.{layer}.{module}"))
}

type Halves = BTreeMap<(Option<u64>, String), [Option<(u64, u64)>; 2]>;

/// The tensors by layer and module: of A its rank and inputs, of B its rank and outputs.
fn halves(place: &str, header: &Header) -> Result<Halves> {
    let mut halves = Halves::new();
    for (tensor, is) in &header.tensors {
        // The base's own embeddings may lie beside; the engine skips them.
        if tensor.ends_with(".embed_tokens.base_layer.weight") || tensor.ends_with(".lm_head.base_layer.weight") {
            continue;
        }
        let wrong = |problem: &str| Error::Tensor {
            place: place.to_owned(),
            tensor: shorten(tensor),
            problem: problem.to_owned(),
        };
        let mut path: Vec<&str> = tensor.split('.').collect();
        let (half, embedding) = match (path.pop(), path.last().copied()) {
            (Some("weight"), Some("lora_A")) => (0, false),
            (Some("weight"), Some("lora_B")) => (1, false),
            (Some("lora_embedding_A"), _) => (0, true),
            (Some("lora_embedding_B"), _) => (1, true),
            _ => return Err(wrong("is no lora_A or lora_B")),
        };
        if !embedding {
            path.pop();
        }
        let module = path.last().filter(|module| !module.is_empty()).ok_or_else(|| wrong("belongs to no module"))?;
        let layer = path.iter().position(|part| *part == "layers").and_then(|at| path.get(at + 1)?.parse().ok());
        let [first, second] = is.shape.as_slice() else { return Err(wrong("has not two dimensions")) };
        let shape = if half == 0 { (*first, *second) } else { (*second, *first) };
        let slot = halves.entry((layer, (*module).to_owned())).or_default();
        let [a, b] = slot;
        let side = if half == 0 { a } else { b };
        if side.replace(shape).is_some() {
            return Err(wrong("stands for a module that has one already"));
        }
    }
    Ok(halves)
}

struct Config<'a> {
    place: &'a str,
    config: &'a Map<String, Value>,
}

impl Config<'_> {
    fn text(&self, field: &str) -> String {
        self.config.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The highest of `r` and of its overrides by module.
    fn rank(&self) -> Result<u64> {
        let overrides = self.config.get("rank_pattern").and_then(Value::as_object);
        let ranks = self.config.get("r").into_iter().chain(overrides.into_iter().flat_map(Map::values));
        let mut highest = 0;
        for rank in ranks {
            highest = highest.max(rank.as_u64().filter(|rank| (1..=1 << 20).contains(rank)).ok_or_else(|| {
                let value = shorten(&rank.to_string());
                Error::Range { place: self.place.to_owned(), field: "r", value, least: 1, most: 1 << 20 }
            })?);
        }
        Ok(highest)
    }

    fn unsupported(&self) -> Vec<String> {
        let truthy = |field: &str| match self.config.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(items)) => !items.is_empty(),
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Bool(true)) => true,
        };
        let mut found: Vec<String> = [
            ("use_dora", "DoRA"),
            ("lora_bias", "lora_bias"),
            ("alora_invocation_tokens", "activated LoRA"),
            ("layer_replication", "layer_replication"),
            ("use_bdlora", "block-diagonal LoRA"),
            ("use_qalora", "QALoRA"),
            ("modules_to_save", "modules_to_save"),
        ]
        .into_iter()
        .filter(|(field, _)| truthy(field))
        .map(|(_, name)| name.to_owned())
        .collect();
        match self.config.get("bias").and_then(Value::as_str) {
            None | Some("none") => {}
            Some(bias) => found.push(format!("bias {:?}", shorten(bias))),
        }
        match self.config.get("init_lora_weights").and_then(Value::as_str) {
            // These only set first values; others change the base model's weights.
            None | Some("gaussian" | "eva" | "orthogonal" | "mica" | "lora_ga") => {}
            Some(init) => found.push(format!("init_lora_weights {:?}", shorten(init))),
        }
        found
    }
}

/// Whether two names mean the same base: the last part of a repository's name or a path, without what only tells a
/// quantisation. Shapes are compared besides.
fn same_base(one: &str, other: &str) -> bool {
    let bare = |name: &str| {
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let ends = ["-awq", "-gptq", "-int4", "-int8", "-fp8", "-fp8-dynamic", "-bnb-4bit", "-4bit", "-w4a16", "-w8a8"];
        let mut rest = last.as_str();
        while let Some(shorter) = ends.iter().find_map(|end| rest.strip_suffix(end)) {
            rest = shorter;
        }
        rest.to_owned()
    };
    !bare(one).is_empty() && bare(one) == bare(other)
}
