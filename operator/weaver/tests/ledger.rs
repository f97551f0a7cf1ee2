//! The ledger beside published figures, and what it advises.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use batos_weaver::{
    Architecture, Calibration, Change, Engine, Fit, GIB, Ledger, MIB, Model, Quantization, StartUp, Verdict, fit,
};
use proptest::prelude::*;

fn model(name: &str) -> Model {
    let (architecture, [layers, hidden, intermediate, heads, kv_heads, vocabulary], tied) = match name {
        "Qwen2.5-1.5B" => (Architecture::Qwen2, [28, 1536, 8960, 12, 2, 151936], true),
        "Qwen2.5-3B" => (Architecture::Qwen2, [36, 2048, 11008, 16, 2, 151936], true),
        "Llama-3.2-3B" => (Architecture::Llama, [28, 3072, 8192, 24, 8, 128256], true),
        "Qwen3-4B" => (Architecture::Qwen3, [36, 2560, 9728, 32, 8, 151936], true),
        "Mistral-7B" => (Architecture::Mistral, [32, 4096, 14336, 32, 8, 32768], false),
        "Qwen2.5-7B" => (Architecture::Qwen2, [28, 3584, 18944, 28, 4, 152064], false),
        "Llama-3.1-8B" => (Architecture::Llama, [32, 4096, 14336, 32, 8, 128256], false),
        "Qwen3-8B" => (Architecture::Qwen3, [36, 4096, 12288, 32, 8, 151936], false),
        _ => unreachable!("{name}"),
    };
    Model {
        architecture,
        layers,
        hidden,
        intermediate,
        heads,
        kv_heads,
        head_dim: 128,
        vocabulary,
        tied,
        longest_context: 32768,
        quantization: Quantization::None,
        stored: None,
    }
}

/// Within 5 %, and within half of the last digit that was published.
#[track_caller]
fn near(what: &str, got: u64, published: f64, unit: u64, digit: f64) {
    let got = got as f64 / unit as f64;
    assert!((got - published).abs() <= (published * 0.05).max(digit / 2.0), "{what}: {got:.3}, published {published}");
}

#[test]
fn weights_are_as_measured() {
    // vllm#13882, volkdata.com/logs/001, QwenLM/Qwen3#1509 ("2.5 G+").
    for (name, gib) in [("Qwen2.5-7B", 5.20), ("Llama-3.1-8B", 5.34), ("Qwen3-4B", 2.5)] {
        near(name, model(name).weight_bytes_as(Quantization::INT4), gib, GIB, 0.01);
    }
    for (name, fp8, half) in [("Qwen2.5-3B", 3.16, 5.74), ("Llama-3.2-3B", 3.36, 5.98), ("Qwen3-4B", 4.08, 7.49)] {
        near(name, model(name).weight_bytes_as(Quantization::Fp8), fp8, GIB, 0.01);
        near(name, model(name).weight_bytes_as(Quantization::None), half, GIB, 0.01);
    }
}

#[test]
fn slots_and_tokens_take_what_was_computed_from_the_engines_source() {
    let all = Engine::default();
    let attention = Engine::from_args(["--lora-target-modules", "qkv_proj", "o_proj", "--enforce-eager"]).unwrap();
    for (name, all_mib, attention_mib, kv_kib) in [
        ("Qwen2.5-1.5B", 35.0, 8.0, 28),
        ("Qwen2.5-3B", 57.0, 14.0, 36),
        ("Llama-3.2-3B", 46.0, 18.0, 112),
        ("Qwen3-4B", 63.0, 23.0, 144),
        ("Qwen2.5-7B", 77.0, 19.0, 56),
        ("Mistral-7B", 80.0, 26.0, 128),
        ("Llama-3.1-8B", 80.0, 26.0, 128),
        ("Qwen3-8B", 83.0, 29.0, 144),
    ] {
        let model = model(name);
        // The sheet lists embeddings apart: 8 to 9.5 MiB where the class wraps them.
        let tables =
            if model.architecture.wraps_embeddings() { 2 * 16 * 2 * (model.vocabulary + model.hidden) } else { 0 };
        near(name, all.slot_bytes(&model) - tables, all_mib, MIB, 1.0);
        near(name, attention.slot_bytes(&model), attention_mib, MIB, 1.0);
        assert_eq!(model.kv_bytes_per_token(2), kv_kib * 1024, "{name}");
    }
    near("Llama's tables", 2 * 16 * 2 * (128256 + 4096), 8.0, MIB, 0.5);
    let four_times = Engine { max_lora_rank: 64, ..Engine::default() };
    assert_eq!(four_times.slot_bytes(&model("Qwen3-8B")), 4 * all.slot_bytes(&model("Qwen3-8B")));
}

#[test]
fn what_is_left_on_8_gb_is_as_published() {
    let engine = Engine { max_loras: 4, max_num_seqs: 16, eager: true, ..Engine::default() };
    for (name, quantization, weights, gib, tokens) in [
        ("Qwen2.5-1.5B", Quantization::INT4, 1.07, 5.1, 190_000.0),
        ("Qwen2.5-1.5B", Quantization::None, 2.87, 3.3, 123_000.0),
        ("Qwen2.5-3B", Quantization::INT4, 1.92, 4.2, 121_000.0),
        ("Qwen2.5-3B", Quantization::Fp8, 3.16, 2.9, 85_000.0),
        ("Qwen2.5-3B", Quantization::None, 5.74, 0.34, 9_800.0),
        ("Llama-3.2-3B", Quantization::INT4, 2.10, 4.0, 37_000.0),
        ("Llama-3.2-3B", Quantization::Fp8, 3.36, 2.8, 26_000.0),
        ("Qwen3-4B", Quantization::INT4, 2.47, 3.6, 26_000.0),
        ("Qwen3-4B", Quantization::Fp8, 4.08, 2.0, 14_000.0),
        ("Mistral-7B", Quantization::INT4, 3.88, 2.1, 17_000.0),
        ("Qwen2.5-7B", Quantization::INT4, 5.19, 0.8, 15_000.0),
        ("Llama-3.1-8B", Quantization::INT4, 5.33, 0.65, 5_000.0),
        ("Qwen3-8B", Quantization::INT4, 5.68, 0.3, 2_000.0),
    ] {
        let model = Model { quantization, ..model(name) };
        let ledger = Ledger::new(&model, 8 * GIB, &engine, &Calibration::default());
        near(name, ledger.weights, weights, GIB, 0.01);
        // The last digit of small remainders is worth more than 5 %.
        near(name, ledger.kv(), gib, GIB, if gib < 1.0 { 0.1 } else { 0.02 });
        near(name, ledger.kv_tokens(), tokens, 1, if tokens < 10_000.0 { 1_000.0 } else { 0.0 });
    }
}

#[test]
fn seven_billion_parameters_in_fp8_do_not_fit_8_gb() {
    for name in ["Mistral-7B", "Qwen2.5-7B", "Llama-3.1-8B", "Qwen3-8B"] {
        let model = Model { quantization: Quantization::Fp8, ..model(name) };
        let engine = Engine { max_model_len: Some(2048), max_num_seqs: 8, ..Engine::default() };
        let Fit { verdict: Verdict::Short { missing, remedy, least_gpu }, .. } =
            fit(&model, 8 * GIB, &engine, &Calibration::default())
        else {
            panic!("{name} fits")
        };
        assert!(missing > 0 && least_gpu > 8 * GIB, "{name}");
        assert!(
            matches!(fit(&model, least_gpu, &engine, &Calibration::default()).verdict, Verdict::Fits { .. }),
            "{name}: {least_gpu}"
        );
        let remedy = remedy.unwrap_or_else(|| panic!("{name} has no remedy"));
        assert!(remedy.contains(&Change::Quantization(Quantization::INT4)), "{name}: {remedy:?}");
    }
}

#[test]
fn the_smallest_change_that_fits_is_named_with_the_bytes() {
    let model = Model { quantization: Quantization::INT4, ..model("Qwen2.5-7B") };
    let engine = Engine { max_loras: 4, max_num_seqs: 16, eager: true, ..Engine::default() };
    let told = fit(&model, 8 * GIB, &engine, &Calibration::default());
    let Verdict::Short { missing, remedy, .. } = &told.verdict else { panic!("{told}") };
    assert_eq!(*missing, told.ledger.taken() + 32768 * 57344 - told.ledger.budget);
    // 15 thousand tokens are left, in steps of 256.
    assert!(matches!(remedy.as_deref(), Some([Change::Context(14_080..=15_104)])), "{told}");
    assert!(told.to_string().contains(&format!("does not fit: {missing} bytes")), "{told}");
    assert!(told.to_string().contains("--max-model-len 1"), "{told}");

    let tight = Engine { max_model_len: Some(15_872), ..engine };
    let told = fit(&model, 8 * GIB, &tight, &Calibration::default());
    let Verdict::Short { remedy: Some(remedy), .. } = &told.verdict else { panic!("{told}") };
    assert_eq!(remedy.len(), 1, "{told}");
}

#[test]
fn a_pool_that_fits_says_how_many_slots_and_how_much_context() {
    let model = Model { quantization: Quantization::INT4, ..model("Qwen2.5-3B") };
    let engine = Engine { max_loras: 4, max_num_seqs: 8, max_model_len: Some(4096), ..Engine::default() };
    let told = fit(&model, 8 * GIB, &engine, &Calibration::default());
    let Verdict::Fits { slots: 4, most_slots, context: 4096, kv_tokens, concurrency } = told.verdict else {
        panic!("{told}")
    };
    assert!(most_slots >= 32 && kv_tokens > 100_000, "{told}");
    assert_eq!(concurrency, kv_tokens * 100 / 4096);
    for (slots, fits) in [(most_slots, true), (most_slots + 1, false)] {
        let told = fit(&model, 8 * GIB, &Engine { max_loras: slots, ..engine.clone() }, &Calibration::default());
        assert_eq!(matches!(told.verdict, Verdict::Fits { .. }), fits, "{slots}: {told}");
    }
}

#[test]
fn a_start_up_log_calibrates_the_ledger() {
    let log = StartUp::read(
        "(EngineCore pid=34322) INFO 05-06 20:59:59 [gpu_model_runner.py:4879] Model loading took 2.15 GiB memory and 3.657031 seconds\n\
         (EngineCore pid=34322) INFO 05-06 21:00:01 [gpu_model_runner.py:5993] Estimated CUDA graph memory: 0.26 GiB total\n\
         (EngineCore pid=34322) INFO 05-06 21:00:02 [gpu_worker.py:761] Available KV cache memory: 4.02 GiB\n\
         (EngineCore pid=34322) INFO 05-06 21:00:02 [kv_cache_utils.py:2327] GPU KV cache size: 117,088 tokens, Maximum concurrency for 4,096 tokens per request: 28.59x\n",
    );
    assert_eq!(log.kv_tokens, Some(117_088));
    assert_eq!(log.graphs, Some(279_172_874));
    let model = Model { quantization: Quantization::INT4, ..model("Qwen2.5-3B") };
    let engine = Engine { max_loras: 4, max_num_seqs: 16, ..Engine::default() };
    let calibration = Calibration::measured(&model, 8 * GIB, &engine, &log).unwrap();
    let ledger = Ledger::new(&model, 8 * GIB, &engine, &calibration);
    // It now tells what the engine told, but for rounding in the graphs' share.
    assert!(ledger.kv_tokens().abs_diff(117_088) <= 16, "{}", ledger.kv_tokens());
    // And moves from there: a slot less is a slot more for tokens.
    let fewer = Ledger::new(&model, 8 * GIB, &Engine { max_loras: 3, ..engine.clone() }, &calibration);
    assert_eq!(fewer.kv() - ledger.kv(), engine.slot_bytes(&model));
    assert_eq!(Calibration::measured(&model, 8 * GIB, &engine, &StartUp::default()), None);
}

#[test]
fn an_old_engines_log_is_read_too() {
    // What vllm#13882 reports, in the words of vLLM 0.7.
    let log = StartUp::read(
        "INFO 02-26 10:00:00 worker.py:267] the current vLLM instance can use total_gpu_memory (8.00GiB) x gpu_memory_utilization (0.70) = 5.60GiB\n\
         INFO 02-26 10:00:00 worker.py:267] model weights take 5.20GiB; non_torch_memory takes 0.05GiB; PyTorch activation peak memory takes 1.42GiB; the rest of the memory reserved for KV Cache is -1.07GiB.\n",
    );
    assert_eq!(log.gpu, Some(8 * GIB));
    assert_eq!(log.utilization, Some(700));
    assert_eq!(log.kv_bytes, Some(0));
    assert_eq!(log.activations, Some(1_524_713_390));
    near("loaded", log.loaded.unwrap(), 5.20, GIB, 0.01);
    // That pool does not fit, and the ledger says so.
    let model = Model { quantization: Quantization::INT4, ..model("Qwen2.5-7B") };
    let engine = Engine { max_loras: 0, utilization: 700, ..Engine::default() };
    assert!(matches!(
        fit(&model, 8 * GIB, &engine, &Calibration::default()).verdict,
        Verdict::Short { missing: 1.., .. }
    ));
}

#[test]
fn arguments_are_read_as_the_engine_reads_them() {
    let engine = Engine::from_args([
        "--enable-lora",
        "--max-loras=4",
        "--max_lora_rank",
        "64",
        "--lora-target-modules",
        "q_proj",
        "down_proj",
        "--gpu-memory-utilization",
        "0.85",
        "--kv-cache-dtype",
        "fp8_e4m3",
        "--served-model-name",
        "x",
    ])
    .unwrap();
    assert_eq!((engine.max_loras, engine.max_lora_rank, engine.utilization, engine.kv_fp8), (4, 64, 850, true));
    for (module, wrapped) in [
        ("q_proj", true),
        ("v_proj", true),
        ("o_proj", false),
        ("up_proj", false),
        ("down_proj", true),
        ("lm_head", false),
    ] {
        assert_eq!(engine.wraps(Architecture::Llama, module), wrapped, "{module}");
    }
    assert!(!Engine::default().wraps(Architecture::Qwen2, "lm_head"));
    for (args, words) in [
        (&["--max-loras"][..], "--max-loras has no value"),
        (&["--max-loras", "-1"], "whole number"),
        (&["--max-lora-rank", "17"], "one of [1, 8"),
        (&["--gpu-memory-utilization", "1.5"], "above 0"),
    ] {
        assert!(Engine::from_args(args.iter().copied()).unwrap_err().contains(words), "{args:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked, the ledger's parts add up, and a remedy that it names really fits.
    #[test]
    fn a_remedy_fits(
        name in prop::sample::select(vec!["Qwen2.5-1.5B", "Llama-3.2-3B", "Qwen3-4B", "Qwen2.5-7B", "Qwen3-8B"]),
        gpu in 2 * GIB..26 * GIB,
        max_loras in 0..40u64,
        rank in prop::sample::select(batos_weaver::RANKS.to_vec()),
        context in 256..200_000u64,
        max_num_seqs in 1..300u64,
        tokens in 128..20_000u64,
        eager: bool,
    ) {
        let model = model(name);
        let engine = Engine {
            max_loras, max_lora_rank: rank, max_model_len: Some(context), max_num_seqs, max_num_batched_tokens: tokens,
            eager, ..Engine::default()
        };
        let told = fit(&model, gpu, &engine, &Calibration::default());
        match &told.verdict {
            Verdict::Fits { kv_tokens, .. } => {
                prop_assert!(*kv_tokens >= context);
                prop_assert!(told.ledger.taken() + kv_tokens * told.ledger.kv_per_token <= told.ledger.budget);
            }
            Verdict::Short { remedy: Some(changes), .. } => {
                let mut changed = engine.clone();
                changes.iter().for_each(|change| change.apply(&mut changed));
                let again = fit(&model, gpu, &changed, &Calibration::default());
                prop_assert!(matches!(again.verdict, Verdict::Fits { .. }), "{changes:?}: {again}");
            }
            Verdict::Short { remedy: None, least_gpu, .. } => {
                let again = fit(&model, *least_gpu, &engine, &Calibration::default());
                prop_assert!(matches!(again.verdict, Verdict::Fits { .. }), "{least_gpu}: {again}");
            }
        }
    }

    #[test]
    fn no_log_makes_it_panic(log: String, number in "[0-9.,-]{0,40}") {
        StartUp::read(&log);
        for words in ["Model loading took ", "GPU KV cache size: ", "total_gpu_memory (", "Available KV cache memory: "] {
            StartUp::read(&format!("{words}{number} GiB"));
            StartUp::read(&format!("{words}{number}"));
        }
    }
}
