//! What the engine checks of an adapter's files before it is loaded.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// Why an adapter cannot be loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// No directory, or no configuration in it.
    NotFound,
    /// The engine's words for anything else.
    Refused(String),
}

/// Reads the adapter under `path` and refuses what an engine with this greatest rank would refuse.
pub(crate) fn check(path: &Path, max_lora_rank: u32) -> Result<(), Defect> {
    let config = fs::read(path.join("adapter_config.json")).map_err(|_| Defect::NotFound)?;
    let config: Map<String, Value> =
        serde_json::from_slice(&config).map_err(|e| Defect::Refused(format!("adapter_config.json: {e}")))?;
    check_config(&config, max_lora_rank).map_err(Defect::Refused)?;
    let tensors = fs::read(path.join("adapter_model.safetensors"))
        .map_err(|_| Defect::Refused(format!("{} doesn't contain tensors", path.display())))?;
    check_tensors(&tensors).map_err(Defect::Refused)
}

fn check_config(config: &Map<String, Value>, max_lora_rank: u32) -> Result<(), String> {
    let missing: Vec<&str> =
        ["r", "lora_alpha", "target_modules"].into_iter().filter(|name| !config.contains_key(*name)).collect();
    if !missing.is_empty() {
        return Err(format!("Missing required configuration fields: {{'{}'}}", missing.join("', '")));
    }
    let truthy = |name: &str| match config.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    if truthy("modules_to_save") {
        return Err(format!(
            "vLLM only supports modules_to_save being either None or [\"classifier\", \"score\"] for classification \
             models. Unsupported modules_to_save: {}",
            config.get("modules_to_save").map(python).unwrap_or_default()
        ));
    }
    if truthy("use_dora") {
        return Err("vLLM does not yet support DoRA.".to_owned());
    }
    if config.get("bias").is_some_and(|bias| bias != "none") {
        return Err("Adapter bias is not supported.".to_owned());
    }
    match config.get("r").and_then(Value::as_u64) {
        None | Some(0) => Err("the rank r is no positive number".to_owned()),
        Some(rank) if rank > u64::from(max_lora_rank) => {
            Err(format!("LoRA rank {rank} is greater than max_lora_rank {max_lora_rank}."))
        }
        Some(_) => Ok(()),
    }
}

/// As Python shows a list of texts.
fn python(value: &Value) -> String {
    value.to_string().replace('"', "'").replace("','", "', '")
}

/// A safetensors file is the length of a JSON header (8 bytes, little endian), the header, and the tensors' bytes:
/// <https://github.com/huggingface/safetensors#format>.
fn check_tensors(file: &[u8]) -> Result<(), String> {
    let broken = |what: &str| format!("Error while deserializing header: {what}");
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(|| broken("header too small"))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| broken("header too large"))?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| broken("invalid header length"))?;
    let header: Map<String, Value> = serde_json::from_slice(header).map_err(|e| broken(&e.to_string()))?;
    let mut end = 0;
    for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        if !(name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")) {
            return Err(format!("{name} is unsupported LoRA weight"));
        }
        let last =
            tensor.pointer("/data_offsets/1").and_then(Value::as_u64).ok_or_else(|| broken("no data_offsets"))?;
        end = end.max(last);
    }
    if end != data.len() as u64 {
        return Err(broken("incomplete metadata, file not fully covered"));
    }
    Ok(())
}
