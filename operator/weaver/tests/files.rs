//! Folders of models and adapters: what is read from them, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use batos_weaver::{Accepts, Adapter, Architecture, Dtype, Engine, MIB, Model, Quantization};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 64, "intermediate_size": 256, "vocab_size": 300,
        "max_position_embeddings": 512, "torch_dtype": "bfloat16",
    })
}

/// Writes a sparse file with these tensors.
fn safetensors(path: &Path, tensors: &[(String, &str, Vec<u64>)]) {
    let mut at = 0;
    let mut header = serde_json::Map::new();
    for (name, dtype, shape) in tensors {
        let bytes = shape.iter().product::<u64>() * if *dtype == "F32" { 4 } else { 2 };
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes]}));
        at += bytes;
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    let length = file.len() as u64 + at;
    fs::write(path, file).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn module(layer: u64, name: &str, rank: u64, inputs: u64, outputs: u64) -> Vec<(String, &'static str, Vec<u64>)> {
    let block = if name.ends_with("proj") && !["gate_proj", "up_proj", "down_proj"].contains(&name) {
        "self_attn"
    } else {
        "mlp"
    };
    let path = format!("base_model.model.model.layers.{layer}.{block}.{name}");
    vec![
        (format!("{path}.lora_A.weight"), "BF16", vec![rank, inputs]),
        (format!("{path}.lora_B.weight"), "BF16", vec![outputs, rank]),
    ]
}

fn adapter(config: &Value, tensors: &[(String, &str, Vec<u64>)]) -> batos_weaver::Result<Adapter> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    safetensors(&folder.path().join("adapter_model.safetensors"), tensors);
    Adapter::open(folder.path())
}

fn lora(rank: u64) -> Value {
    json!({"r": rank, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none",
           "base_model_name_or_path": "somewhere/tiny-llama"})
}

fn pool() -> Accepts {
    Accepts {
        bases: vec!["lab/Tiny-Llama-AWQ".to_owned()],
        model: Model::parse("config.json", config().to_string().as_bytes()).unwrap(),
        engine: Engine::default(),
        largest: MIB,
    }
}

#[track_caller]
fn refused(adapter: &Adapter, pool: &Accepts, words: &[&str]) {
    let refusals: Vec<String> = adapter.refusals(pool).iter().map(ToString::to_string).collect();
    assert_eq!(refusals.len(), words.len(), "{refusals:?}");
    for (refusal, words) in refusals.iter().zip(words) {
        assert!(refusal.contains(words), "{refusal}, not {words}");
    }
}

#[test]
fn a_models_folder_tells_its_sizes_and_the_weights_as_stored() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    let computed = Model::open(folder.path()).unwrap();
    assert_eq!((computed.architecture, computed.layers, computed.kv_heads), (Architecture::Llama, 2, 1));
    assert_eq!(computed.weight_bytes(), 2 * (2 * (128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 256) + 2 * 300 * 128));
    safetensors(&folder.path().join("model-1.safetensors"), &[("a".to_owned(), "BF16", vec![1000, 10])]);
    safetensors(&folder.path().join("model-2.safetensors"), &[("lm_head.weight".to_owned(), "BF16", vec![300, 128])]);
    assert_eq!(Model::open(folder.path()).unwrap().weight_bytes(), 20_000 + 76_800);
    let mut tied = config();
    tied["tie_word_embeddings"] = json!(true);
    fs::write(folder.path().join("config.json"), tied.to_string()).unwrap();
    assert_eq!(Model::open(folder.path()).unwrap().weight_bytes(), 20_000);
}

#[test]
fn quantisations_are_read_as_their_tools_write_them() {
    let int = |bits, group| Quantization::Integer { bits, group };
    for (written, read) in [
        (json!(null), Quantization::None),
        (json!({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true}), Quantization::INT4),
        (json!({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}), int(4, Some(64))),
        (json!({"quant_method": "gptq", "bits": 8, "group_size": -1}), int(8, None)),
        (json!({"quant_method": "fp8", "activation_scheme": "dynamic"}), Quantization::Fp8),
        (
            json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights":
                {"num_bits": 8, "type": "float"}}}}),
            Quantization::Fp8,
        ),
        (
            json!({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights":
                {"num_bits": 4, "type": "int", "group_size": 128}}}}),
            Quantization::INT4,
        ),
    ] {
        let mut config = config();
        config["quantization_config"] = written.clone();
        assert_eq!(Model::parse("c", config.to_string().as_bytes()).unwrap().quantization, read, "{written}");
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused_with_the_field() {
    for (field, value, words) in [
        ("hidden_size", json!(null), "config.json: hidden_size is missing"),
        ("hidden_size", json!(0), "hidden_size is 0"),
        ("hidden_size", json!(-5), "hidden_size is -5"),
        ("num_hidden_layers", json!(u64::MAX), "num_hidden_layers is 18446744073709551615"),
        ("vocab_size", json!("many".repeat(99)), "…, which is not within"),
        ("num_key_value_heads", json!(1.5), "num_key_value_heads is 1.5"),
        ("architectures", json!([]), "architectures is missing"),
        ("architectures", json!(["MixtralForCausalLM"]), "\"MixtralForCausalLM\" is not one of Llama"),
        ("quantization_config", json!({"quant_method": "quip"}), "quantisation \"quip\""),
        ("quantization_config", json!({"quant_method": "awq", "bits": 99}), "99 bits"),
    ] {
        let mut config = config();
        config[field] = value;
        let error = Model::parse("config.json", config.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}, not {words}");
    }
    let error = Model::open(Path::new("/nowhere")).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn an_adapter_that_fits_is_taken() {
    let tensors = [module(0, "q_proj", 8, 128, 128), module(1, "down_proj", 8, 256, 128)].concat();
    let adapter = adapter(&lora(8), &tensors).unwrap();
    assert_eq!((adapter.rank, adapter.host_bytes, adapter.stored_bytes), (8, 10240, 10240));
    assert_eq!(adapter.modules.iter().map(String::as_str).collect::<Vec<_>>(), ["down_proj", "q_proj"]);
    assert_eq!(adapter.dtypes.iter().copied().collect::<Vec<_>>(), [Dtype::Bf16]);
    refused(&adapter, &pool(), &[]);
}

#[test]
fn an_adapter_that_does_not_is_refused_with_what_is_over() {
    let q = || module(0, "q_proj", 8, 128, 128);
    let plain = adapter(&lora(8), &q()).unwrap();
    refused(&plain, &Accepts { bases: vec!["other/7B".into()], ..pool() }, &["made for \"somewhere/tiny-llama\""]);
    refused(&plain, &Accepts { largest: 4095, ..pool() }, &["takes 4096 bytes, at most 4095"]);
    let high = adapter(&lora(64), &module(0, "q_proj", 64, 128, 128)).unwrap();
    refused(&high, &pool(), &["rank is 64, the pool's slots are for 16"]);
    let attention = Engine::from_args(["--lora-target-modules", "qkv_proj"]).unwrap();
    let both = adapter(&lora(8), &[q(), module(0, "up_proj", 8, 128, 256), module(1, "up_proj", 8, 128, 256)].concat());
    refused(&both.unwrap(), &Accepts { engine: attention, ..pool() }, &["no buffers for its module \"up_proj\""]);
    for (tensors, words) in [
        (module(0, "q_proj", 8, 64, 128), "q_proj goes from 64 to 128, the base model's from 128 to 128"),
        (module(7, "q_proj", 8, 128, 128), "layer 7, the base model has 2"),
        (module(0, "w1_proj", 8, 128, 128), "no module \"w1_proj\""),
    ] {
        refused(&adapter(&lora(8), &tensors).unwrap(), &pool(), &[words]);
    }
    for (field, value, words) in [
        ("use_dora", json!(true), "DoRA"),
        ("bias", json!("all"), "bias \"all\""),
        ("modules_to_save", json!(["lm_head"]), "modules_to_save"),
        ("init_lora_weights", json!("pissa"), "\"pissa\""),
        ("alora_invocation_tokens", json!([1]), "activated LoRA"),
        ("rank_pattern", json!({"q_proj": 32}), "rank is 32"),
    ] {
        let mut config = lora(8);
        config[field] = value;
        refused(&adapter(&config, &q()).unwrap(), &pool(), &[words]);
    }
}

#[test]
fn files_that_are_no_adapter_are_refused_with_the_tensor() {
    let q = || module(0, "q_proj", 8, 128, 128);
    let half = |at: usize| vec![q().swap_remove(at)];
    for (config, tensors, words) in [
        (json!({"r": 8}), q(), "lora_alpha is missing"),
        (lora(0), q(), "r is 0"),
        (lora(4), q(), "rank 8 in A, 8 in B, at most 4"),
        (lora(8), half(0), "\"layers.0.q_proj\": lora_B is missing"),
        (lora(8), half(1), "lora_A is missing"),
        (lora(8), vec![("x.weight".to_owned(), "BF16", vec![1, 1])], "\"x.weight\": is no lora_A"),
        (lora(8), vec![("q.lora_A.weight".to_owned(), "BF16", vec![1])], "has not two dimensions"),
    ] {
        let error = adapter(&config, &tensors).unwrap_err().to_string();
        assert!(error.contains(words), "{error}, not {words}");
    }
    let both = [q(), vec![("base_model.model.model.layers.0.q_proj.lora_A.weight".to_owned(), "BF16", vec![8, 128])]];
    assert!(adapter(&lora(8), &both.concat()).unwrap_err().to_string().contains("one already"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_configuration_makes_it_panic(
        text: String,
        field in prop::sample::select(vec!["hidden_size", "num_hidden_layers", "quantization_config", "head_dim"]),
        number: i64,
    ) {
        let _ = Model::parse("c", text.as_bytes());
        let mut config = config();
        config[field] = json!(number);
        if let Ok(model) = Model::parse("c", config.to_string().as_bytes()) {
            model.weight_bytes();
        }
    }
}
