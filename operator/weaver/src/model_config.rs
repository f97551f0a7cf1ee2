//! A base model's sizes, from the `config.json` that Hugging Face's libraries write.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::units::MIB;

/// Longest `config.json` or `adapter_config.json` that is read, in bytes.
pub const LONGEST_CONFIG: u64 = MIB;

/// Decoders of Llama's shape that vLLM wraps layer by layer for LoRA, and how they differ for a ledger.
/// Source: `packed_modules_mapping` and `embedding_modules` in vLLM's `model_executor/models`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

const ARCHITECTURES: [(&str, Architecture); 4] = [
    ("LlamaForCausalLM", Architecture::Llama),
    ("MistralForCausalLM", Architecture::Mistral),
    ("Qwen2ForCausalLM", Architecture::Qwen2),
    ("Qwen3ForCausalLM", Architecture::Qwen3),
];

impl Architecture {
    /// Whether LoRA buffers are made for `embed_tokens` and `lm_head` too.
    pub fn wraps_embeddings(self) -> bool {
        !matches!(self, Self::Qwen2)
    }
}

/// How the linear layers' weights are stored. Embeddings, and the adapters, stay in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// 16 bits.
    None,
    /// 8-bit floats, a scale for each output.
    Fp8,
    /// AWQ, GPTQ and their like: integers of `bits`, and for each `group` of inputs of an output (none: all its inputs)
    /// a 16-bit scale and a zero point of `bits`.
    Integer { bits: u64, group: Option<u64> },
}

impl Quantization {
    /// AWQ's and GPTQ's usual form.
    pub const INT4: Self = Self::Integer { bits: 4, group: Some(128) };

    /// Bytes of a layer from `inputs` to `outputs`.
    pub fn bytes(self, inputs: u64, outputs: u64) -> u64 {
        let weights = inputs * outputs;
        match self {
            Self::None => weights * 2,
            Self::Fp8 => weights + outputs * 4,
            Self::Integer { bits, group } => {
                let groups = group.map_or(1, |group| inputs.div_ceil(group)) * outputs;
                (weights * bits + groups * (16 + bits)).div_ceil(8)
            }
        }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("16 bits"),
            Self::Fp8 => f.write_str("FP8"),
            Self::Integer { bits, group: Some(group) } => write!(f, "INT{bits}, groups of {group}"),
            Self::Integer { bits, group: None } => write!(f, "INT{bits}"),
        }
    }
}

/// Sizes of a decoder. All are counts, and small enough that their products fit into 64 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub architecture: Architecture,
    pub layers: u64,
    pub hidden: u64,
    pub intermediate: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    pub vocabulary: u64,
    /// One table serves as input and as output embedding.
    pub tied: bool,
    /// Tokens.
    pub longest_context: u64,
    pub quantization: Quantization,
    /// Bytes of the checkpoint's tensors, if its headers were read. What is loaded as a whole, a tied table once.
    pub stored: Option<u64>,
}

/// A linear layer of each decoder layer, by the name that adapters use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    pub name: &'static str,
    pub inputs: u64,
    pub outputs: u64,
}

impl Model {
    /// Reads `config.json`. `place` names it in errors.
    ///
    /// # Errors
    /// `Json`, `Missing`, `Range`, `Architecture` and `Quantization`, each with the place and the field.
    pub fn parse(place: &str, text: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|e| Error::Json { place: place.to_owned(), problem: e.to_string() })?;
        let fields = Fields { place, fields: &fields };
        let architecture = fields.architecture()?;
        let hidden = fields.count("hidden_size", None, 1 << 20)?;
        let heads = fields.count("num_attention_heads", None, 1 << 12)?;
        Ok(Self {
            architecture,
            layers: fields.count("num_hidden_layers", None, 1 << 12)?,
            hidden,
            intermediate: fields.count("intermediate_size", None, 1 << 22)?,
            heads,
            kv_heads: fields.count("num_key_value_heads", Some(heads), 1 << 12)?,
            head_dim: fields.count("head_dim", Some((hidden / heads).max(1)), 1 << 12)?,
            vocabulary: fields.count("vocab_size", None, 1 << 22)?,
            tied: fields.fields.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            longest_context: fields.count("max_position_embeddings", None, 1 << 32)?,
            quantization: fields.quantization()?,
            stored: None,
        })
    }

    /// The linear layers of one decoder layer, as the checkpoint has them. The engine packs q, k and v, and gate and up,
    /// but keeps an adapter's A and B for each.
    pub fn linears(&self) -> [Linear; 7] {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let linear = |name, inputs, outputs| Linear { name, inputs, outputs };
        [
            linear("q_proj", self.hidden, q),
            linear("k_proj", self.hidden, kv),
            linear("v_proj", self.hidden, kv),
            linear("o_proj", q, self.hidden),
            linear("gate_proj", self.hidden, self.intermediate),
            linear("up_proj", self.hidden, self.intermediate),
            linear("down_proj", self.intermediate, self.hidden),
        ]
    }

    /// Bytes of the weights: as stored if the headers were read, else computed. The computed figure lacks norms and
    /// biases, less than a thousandth.
    pub fn weight_bytes(&self) -> u64 {
        self.stored.unwrap_or_else(|| self.weight_bytes_as(self.quantization))
    }

    /// Bytes of the weights under another quantisation.
    pub fn weight_bytes_as(&self, quantization: Quantization) -> u64 {
        let layer: u64 = self.linears().iter().map(|linear| quantization.bytes(linear.inputs, linear.outputs)).sum();
        let tables = if self.tied { 1 } else { 2 };
        layer * self.layers + 2 * self.vocabulary * self.hidden * tables
    }

    /// Bytes that one token's keys and values take, at `bytes` for each number.
    pub fn kv_bytes_per_token(&self, bytes: u64) -> u64 {
        2 * self.layers * self.kv_heads * self.head_dim * bytes
    }
}

struct Fields<'a> {
    place: &'a str,
    fields: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn place(&self) -> String {
        self.place.to_owned()
    }

    fn architecture(&self) -> Result<Architecture> {
        let name = self.fields.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::Missing { place: self.place(), field: "architectures" })?;
        ARCHITECTURES.iter().find(|(known, _)| *known == name).map(|(_, architecture)| *architecture).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            Error::Architecture { place: self.place(), name: shorten(name), known: known.join(", ") }
        })
    }

    /// A whole number from 1 to `most`; `absent` stands for null and for a field that is not there.
    fn count(&self, field: &'static str, absent: Option<u64>, most: u64) -> Result<u64> {
        let value = match (self.fields.get(field), absent) {
            (None | Some(Value::Null), Some(absent)) => return Ok(absent),
            (None | Some(Value::Null), None) => return Err(Error::Missing { place: self.place(), field }),
            (Some(value), _) => value,
        };
        value.as_u64().filter(|number| (1..=most).contains(number)).ok_or_else(|| Error::Range {
            place: self.place(),
            field,
            value: shorten(&value.to_string()),
            least: 1,
            most,
        })
    }

    fn quantization(&self) -> Result<Quantization> {
        let config = match self.fields.get("quantization_config") {
            None | Some(Value::Null) => return Ok(Quantization::None),
            Some(config) => config,
        };
        let unknown = |method: &str| Error::Quantization { place: self.place(), method: shorten(method) };
        let method = config.get("quant_method").and_then(Value::as_str).unwrap_or_default();
        match method {
            "fp8" | "fbgemm_fp8" => Ok(Quantization::Fp8),
            "awq" | "gptq" | "awq_marlin" | "gptq_marlin" => {
                // Older AWQ files say `w_bit` and `q_group_size`.
                let number = |names: [&str; 2]| names.iter().find_map(|name| config.get(name)?.as_i64());
                let bits = number(["bits", "w_bit"]).unwrap_or(4);
                let group = number(["group_size", "q_group_size"]).unwrap_or(128);
                integer(bits, group).ok_or_else(|| unknown(&format!("{method}, {bits} bits, groups of {group}")))
            }
            "compressed-tensors" => {
                let weights = config.pointer("/config_groups/group_0/weights").unwrap_or(&Value::Null);
                let bits = weights.get("num_bits").and_then(Value::as_i64).unwrap_or_default();
                let group = weights.get("group_size").and_then(Value::as_i64).unwrap_or(-1);
                match (weights.get("type").and_then(Value::as_str), bits) {
                    (Some("float"), 8) => Ok(Quantization::Fp8),
                    (Some("int"), bits) => integer(bits, group).ok_or_else(|| unknown(method)),
                    _ => Err(unknown(method)),
                }
            }
            method => Err(unknown(method)),
        }
    }
}

fn integer(bits: i64, group: i64) -> Option<Quantization> {
    let bits = u64::try_from(bits).ok().filter(|bits| matches!(bits, 2 | 3 | 4 | 8))?;
    let group = match group {
        -1 => None,
        group => Some(u64::try_from(group).ok().filter(|group| (1..=1 << 20).contains(group))?),
    };
    Some(Quantization::Integer { bits, group })
}

/// What somebody else wrote, short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
