use std::collections::BTreeMap;

use serde_json::json;

use super::{adapters::*, *};
use crate::{condition::Outlook, workload::Child};

fn pool(slots: i32) -> ModelPool {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "ModelPool",
        "metadata": { "name": "small", "namespace": "default", "uid": "p" },
        "spec": { "model": "base", "image": "vllm", "slots": slots, "gpu": {}, "args": ["--enforce-eager"] },
    }))
    .unwrap()
}

fn facet(name: &str, path: &str) -> Facet {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Facet",
        "metadata": { "name": name, "namespace": "default", "uid": name },
        "spec": { "pool": "small", "adapter": { "path": path } },
    }))
    .unwrap()
}

fn deleted(mut facet: Facet) -> Facet {
    facet.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default()));
    facet
}

fn engine(name: &str, holds: &[&str]) -> EnginePod {
    let models: BTreeMap<_, _> = holds.iter().map(|adapter| ((*adapter).to_owned(), String::new())).collect();
    EnginePod { name: name.into(), ip: format!("ip-{name}"), models: Ok(models) }
}

fn verdicts(told: &Told) -> Vec<(&str, Outlook, &str)> {
    told.verdicts.iter().map(|v| (v.condition, v.outlook, v.reason)).collect()
}

#[test]
fn the_engine_is_started_as_vllm_wants_it() {
    let children = workload::build(&pool(4));
    let Some(Child::Deployment(deployment)) = children.last() else { panic!("{children:?}") };
    let pod = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let container = &pod.containers[0];
    assert_eq!(
        container.args.as_ref().unwrap().join(" "),
        "base --port=8000 --enable-lora --max-loras=4 --max-lora-rank=16 --enforce-eager"
    );
    assert_eq!(container.env.as_ref().unwrap()[0].name, "VLLM_ALLOW_RUNTIME_LORA_UPDATING");
    assert_eq!(container.resources.as_ref().unwrap().limits.as_ref().unwrap()["nvidia.com/gpu"].0, "1");
}

#[test]
fn a_facet_is_loaded_under_a_name_that_tells_its_path() {
    let facets = [facet("ledger", "/adapters/ledger")];
    let plan = plan(&pool(4), &facets, &[engine("a", &[])]);
    let name = adapter_name(&facets[0]);
    assert!(name.starts_with("ledger-") && name.len() == "ledger-".len() + 8, "{name}");
    assert_ne!(name, adapter_name(&facet("ledger", "/adapters/other")));
    let step =
        Step { pod: "a".into(), ip: "ip-a".into(), adapter: name.clone(), path: Some("/adapters/ledger".into()) };
    assert_eq!(plan.steps, [step]);

    let outcomes = Outcomes::from([(("a".into(), name.clone()), Ok(()))]);
    let told = tell(&facets[0], &plan, &outcomes);
    assert_eq!((told.pod.as_deref(), told.adapter.as_ref(), told.retry), (Some("a"), Some(&name), false));
    assert!(told.verdicts.iter().all(|verdict| verdict.outlook == Outlook::Good));
}

#[test]
fn a_load_that_failed_is_told_with_the_engines_words_and_tried_again() {
    let facets = [facet("ledger", "/nothing")];
    let plan = plan(&pool(4), &facets, &[engine("a", &[])]);
    let outcomes = Outcomes::from([(("a".into(), adapter_name(&facets[0])), Err("404: no such folder".into()))]);
    let told = tell(&facets[0], &plan, &outcomes);
    assert_eq!(
        verdicts(&told),
        [
            ("Ready", Outlook::Bad, "LoadFailed"),
            ("Placed", Outlook::Good, "Placed"),
            ("Loaded", Outlook::Bad, "LoadFailed")
        ]
    );
    assert!(told.retry);
    assert!(told.verdicts[0].message.contains("no such folder"));
}

#[test]
fn without_pod_or_slot_a_facet_waits_and_says_for_what() {
    let facets = [facet("a", "/a"), facet("b", "/b")];
    let nowhere = plan(&pool(1), &facets, &[]);
    assert_eq!(verdicts(&tell(&facets[0], &nowhere, &Outcomes::new()))[0].2, "NoPod");
    let full = plan(&pool(1), &facets, &[engine("x", &[])]);
    assert_eq!(verdicts(&tell(&facets[1], &full, &Outcomes::new()))[0], ("Ready", Outlook::Bad, "NoFreeSlot"));
    let broken = EnginePod { models: Err("refused".into()), ..engine("x", &[]) };
    let told = tell(&facets[0], &plan(&pool(1), &facets, &[broken]), &Outcomes::new());
    assert_eq!((told.verdicts[0].reason, told.verdicts[0].message.as_str()), ("EngineUnreachable", "x: refused"));
}

#[test]
fn a_deleted_facet_goes_when_its_adapter_is_unloaded() {
    let facet = deleted(facet("ledger", "/adapters/ledger"));
    let adapter = adapter_name(&facet);
    let engines = [engine("a", &[&adapter, "ledger-two-00000000"])];
    let plan = plan(&pool(4), std::slice::from_ref(&facet), &engines);
    assert!(plan.steps.contains(&Step { pod: "a".into(), ip: "ip-a".into(), adapter: adapter.clone(), path: None }));
    assert!(!may_go(&facet, &engines, &Outcomes::new()));
    let failed = Outcomes::from([(("a".to_owned(), adapter.clone()), Err("500".to_owned()))]);
    assert!(!may_go(&facet, &engines, &failed));
    assert!(may_go(&facet, &engines, &Outcomes::from([(("a".to_owned(), adapter), Ok(()))])));
    assert!(may_go(&facet, &[engine("a", &[])], &Outcomes::new()), "nothing is loaded");
}

#[test]
fn only_pods_that_serve_and_stay_count() {
    let pod = |name: &str, ready: &str, deleted: bool| -> Pod {
        let mut metadata = json!({ "name": name });
        if deleted {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(json!({
            "metadata": metadata,
            "status": { "podIP": "10.0.0.1", "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    };
    let pods = [pod("b", "True", false), pod("a", "True", false), pod("c", "False", false), pod("d", "True", true)];
    let names: Vec<_> = serving(&pods.iter().collect::<Vec<_>>()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b"]);
}
