use serde_json::{Value, json};

use super::{plan::*, *};
use crate::{condition::Outlook, context::Settings, workload::Child};

fn settings(default_store: Option<&str>) -> Settings {
    Settings {
        nats: "nats://bus:4222".into(),
        root: "batos".into(),
        worker_image: "batos:1".into(),
        default_store: default_store.map(str::to_owned),
        volume_size: "1Gi".into(),
        namespace: None,
        drift_check: std::time::Duration::from_secs(600),
        proposal_check: std::time::Duration::from_secs(30),
        decisions: None,
        network_policies: true,
        own_namespace: "system".into(),
        own_name: String::new(),
        lease: std::time::Duration::from_secs(15),
    }
}

fn universe(spec: Value) -> Universe {
    named("default", "uid", 10, spec)
}

fn named(namespace: &str, uid: &str, second: i64, spec: Value) -> Universe {
    let created = format!("2026-01-01T00:00:{second}Z");
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Universe",
        "metadata": { "name": "u", "namespace": namespace, "uid": uid, "generation": 1, "creationTimestamp": created },
        "spec": spec,
    }))
    .unwrap()
}

fn nothing(namesakes: &[Universe]) -> Observed<'_> {
    Observed {
        deployment: None,
        stateful_set: None,
        pods: Vec::new(),
        namesakes,
        restore: super::restore::Observed::default(),
        codexes: &[],
        unreadable_codex: None,
        approver: None,
    }
}

fn planned(universe: &Universe, default_store: Option<&str>) -> Plan {
    plan(universe, &nothing(std::slice::from_ref(universe)), &settings(default_store))
}

fn arguments(plan: &Plan) -> String {
    let pod = match plan.children.last() {
        Some(Child::Deployment(deployment)) => deployment.spec.as_ref().unwrap().template.spec.clone(),
        Some(Child::StatefulSet(set)) => set.spec.as_ref().unwrap().template.spec.clone(),
        other => panic!("no workload: {other:?}"),
    };
    pod.unwrap().containers[0].args.clone().unwrap().join(" ")
}

#[test]
fn a_universe_on_tikv_gets_a_deployment() {
    let spec = json!({ "store": { "tikv": { "endpoints": ["a:1", "b:2"] } }, "workers": { "replicas": 3 } });
    let plan = planned(&universe(spec), None);
    assert!(matches!(plan.children.as_slice(), [Child::ServiceAccount(_), Child::PodDisruptionBudget(_),
        Child::Service(_), Child::NetworkPolicy(_), Child::ConfigMap(_), Child::Deployment(d)]
        if d.spec.as_ref().unwrap().replicas == Some(3)));
    assert_eq!(
        arguments(&plan),
        "uvm --universe u --store tikv://a:1,b:2 --root batos \
         --mind /etc/batos/mind.yaml --keep-history 30d --keep-replies 1d --keep-unreached 1d --health 0.0.0.0:8081"
    );
    assert_eq!((plan.verdict.reason, plan.verdict.outlook), ("Starting", Outlook::Waiting));
}

#[test]
fn without_a_store_it_is_the_default_or_a_file_with_one_worker() {
    assert_eq!(planned(&universe(json!({})), Some("tikv://d:1")).store.as_deref(), Some("tikv://d:1"));
    let plan = planned(&universe(json!({})), None);
    let Some(Child::StatefulSet(set)) = plan.children.last() else { panic!("{plan:?}") };
    assert!(set.spec.as_ref().unwrap().volume_claim_templates.is_some());
    assert!(arguments(&plan).contains("--store redb:///data/universe.redb"));
    let plan = planned(&universe(json!({ "workers": { "replicas": 2 } })), None);
    assert_eq!((plan.verdict.reason, plan.children.len(), plan.store), ("SingleWriter", 0, None));
}

fn environment(plan: &Plan) -> std::collections::BTreeMap<String, Value> {
    let Some(Child::Deployment(deployment)) = plan.children.last() else { panic!("{plan:?}") };
    let pod = deployment.spec.as_ref().unwrap().template.spec.clone().unwrap();
    let variables = pod.containers[0].env.clone().unwrap();
    variables.into_iter().map(|variable| (variable.name.clone(), json!(variable))).collect()
}

#[test]
fn workers_know_the_approvers_of_the_universe_and_the_operators_key() {
    let (person, operator) = ("0a".repeat(32), "0b".repeat(32));
    let known = |spec: Value, approver: Option<&str>| {
        let universe = universe(spec);
        let observed = Observed { approver, ..nothing(std::slice::from_ref(&universe)) };
        let plan = plan(&universe, &observed, &settings(Some("tikv://d:1")));
        let config = plan.children.iter().find_map(|child| match child {
            Child::ConfigMap(config) => config.data.clone(),
            _ => None,
        });
        serde_json::from_str::<Value>(&config.unwrap()["mind.yaml"]).unwrap()["approvers"].clone()
    };
    assert_eq!(known(json!({}), None), Value::Null);
    assert_eq!(known(json!({}), Some(&operator)), json!([operator]));
    let spec = json!({ "mind": { "approvers": [person] } });
    assert_eq!(known(spec.clone(), Some(&operator)), json!([person, operator]));
    assert_eq!(known(spec, Some(&person)), json!([person]));
}

#[test]
fn workers_keep_what_the_universe_says() {
    let spec = json!({ "retention": { "history": "forever", "replies": "12h", "unreached": "2d" } });
    assert!(
        arguments(&planned(&universe(spec), None))
            .contains("--keep-history forever --keep-replies 12h --keep-unreached 2d ")
    );
}

#[test]
fn the_bus_is_the_universes_own_or_the_operators() {
    let plan = planned(&universe(json!({ "bus": { "url": "nats://x:1", "root": "r" } })), Some("tikv://d:1"));
    assert!(arguments(&plan).contains("--root r "));
    assert_eq!(environment(&plan)["BATOS_NATS"]["value"], "nats://x:1");
    let plan = planned(&universe(json!({})), Some("tikv://d:1"));
    assert_eq!(environment(&plan)["BATOS_NATS"]["value"], "nats://bus:4222");
}

#[test]
fn passwords_reach_the_workers_by_reference_only() {
    let plan = planned(&universe(json!({ "bus": { "credentialsSecret": "logins" } })), Some("tikv://d:1"));
    let variables = environment(&plan);
    assert_eq!(variables["BATOS_NATS"]["value"], "nats://system:$(BATOS_NATS_PASSWORD)@bus:4222");
    let reference = &variables["BATOS_NATS_PASSWORD"]["valueFrom"]["secretKeyRef"];
    assert_eq!((&reference["name"], &reference["key"]), (&json!("logins"), &json!("system")));
}

#[test]
fn workers_reach_what_they_need_and_are_reached_by_probes() {
    let spec = json!({ "store": { "tikv": { "endpoints": ["pd:2379"] } }, "bus": { "url": "nats://x:4333" },
        "mind": { "url": "http://vllm:8000/v1", "model": "m" } });
    let plan = planned(&universe(spec), None);
    let policy = plan.children.iter().find_map(|child| match child {
        Child::NetworkPolicy(policy) => policy.spec.clone(),
        _ => None,
    });
    let policy = json!(policy.unwrap());
    let ports =
        |rules: &Value| rules[0]["ports"].as_array().unwrap().iter().map(|p| p["port"].clone()).collect::<Vec<_>>();
    assert_eq!(ports(&policy["ingress"]), [8081]);
    assert_eq!(ports(&policy["egress"]), [53, 53, 2379, 4333, 8000, 20160]);
    let mut bare = settings(None);
    bare.network_policies = false;
    let universe = universe(json!({}));
    let plan = super::plan::plan(&universe, &nothing(std::slice::from_ref(&universe)), &bare);
    assert!(!plan.children.iter().any(|child| matches!(child, Child::NetworkPolicy(_))));
}

#[test]
fn a_change_of_the_default_store_moves_no_universe() {
    let mut universe = universe(json!({}));
    universe.status = Some(batos_crds::UniverseStatus { store: Some("tikv://d:1".into()), ..Default::default() });
    let plan = planned(&universe, None);
    assert_eq!((plan.verdict.reason, plan.children.len()), ("StoreChanged", 0));
    assert_eq!(plan.store.as_deref(), Some("tikv://d:1"));
    universe.spec.store = Some(batos_crds::StoreSpec { tikv: batos_crds::TikvSpec { endpoints: vec!["d:1".into()] } });
    assert_eq!(planned(&universe, None).verdict.reason, "Starting", "named as it is");
}

fn job(owner: &str, condition: Option<&str>) -> k8s_openapi::api::batch::v1::Job {
    serde_json::from_value(json!({
        "metadata": { "name": "u-restore", "uid": "job",
            "ownerReferences": [{ "apiVersion": "", "kind": "Universe", "name": "u", "uid": owner }] },
        "status": { "conditions": condition.iter().map(|c| json!({ "type": c, "status": "True" })).collect::<Vec<_>>() },
    }))
    .unwrap()
}

fn ended(code: i32, message: &str) -> k8s_openapi::api::core::v1::Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "ownerReferences": [{ "apiVersion": "", "kind": "Job", "name": "", "uid": "job" }] },
        "status": { "containerStatuses": [{ "name": "image", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": { "terminated": { "exitCode": code, "message": message } } }] },
    }))
    .unwrap()
}

fn snapshot(files: &[&str]) -> batos_crds::Snapshot {
    let image = |file: &&str| {
        json!({ "file": file, "taken": "2026-01-01T00:00:00Z", "bytes": 1, "objects": 1, "rows": 1, "digest": "",
            "milliseconds": 1 })
    };
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Snapshot", "metadata": { "name": "nightly" },
        "spec": { "universe": "old", "claim": "images" },
        "status": { "images": files.iter().map(image).collect::<Vec<_>>() },
    }))
    .unwrap()
}

#[test]
fn a_universe_is_restored_before_it_has_workers() {
    use super::restore::Observed as Seen;
    let spec = json!({ "restoreFrom": { "snapshot": "nightly" } });
    let wanted = universe(spec.clone());
    let at = |seen: Seen<'_>, status: Option<Value>| {
        let mut wanted = wanted.clone();
        wanted.status = status.map(|status| serde_json::from_value(status).unwrap());
        let all = std::slice::from_ref(&wanted);
        let plan = plan(&wanted, &Observed { restore: seen, ..nothing(all) }, &settings(None));
        let workers = plan.children.iter().any(|child| matches!(child, Child::StatefulSet(_)));
        (plan.verdict.reason, workers, plan.restore.map(|r| (r.image, r.done)), plan.verdict.message)
    };
    let (none, some) = (snapshot(&[]), snapshot(&["nightly/2.image", "nightly/1.image"]));
    let with = |snapshot, job, pods| Seen { snapshot: Some(snapshot), job, pods, others_work: false };
    let chosen = |done| Some(("nightly/2.image".to_owned(), done));
    let (ours, done, failed) = (job("uid", None), job("uid", Some("Complete")), job("uid", Some("Failed")));
    let (other, refused) = (job("another", Some("Complete")), ended(1, "universe u is there already"));

    let (reason, workers, restore, _) = at(Seen::default(), None);
    assert_eq!((reason, workers, restore), ("SnapshotMissing", false, None));
    let (reason, workers, restore, _) = at(with(&none, None, vec![]), None);
    assert_eq!((reason, workers, restore), ("SnapshotNotReady", false, None));
    let (reason, workers, restore, _) = at(with(&some, None, vec![]), None);
    assert_eq!((reason, workers, restore), ("Restoring", false, chosen(false)));
    let (reason, workers, restore, _) = at(with(&some, Some(&other), vec![]), None);
    assert_eq!((reason, workers, restore), ("Restoring", false, chosen(false)), "of a universe that is gone");
    let held = Seen { others_work: true, ..with(&some, None, vec![]) };
    let held = plan(&wanted, &Observed { restore: held, ..nothing(std::slice::from_ref(&wanted)) }, &settings(None));
    assert_eq!((held.verdict.reason, held.children.len()), ("Restoring", 0), "{}", held.verdict.message);
    let (reason, workers, restore, _) = at(with(&some, Some(&ours), vec![]), None);
    assert_eq!((reason, workers, restore), ("Restoring", false, chosen(false)));
    for job in [&ours, &failed] {
        let (reason, workers, _, message) = at(with(&some, Some(job), vec![&refused]), None);
        assert_eq!((reason, workers), ("RestoreFailed", false));
        assert!(message.contains("there already"), "{message}");
    }
    let (reason, workers, restore, _) = at(with(&some, Some(&done), vec![]), None);
    assert_eq!((reason, workers, restore), ("Starting", true, chosen(true)));

    // What was chosen once stays, and what was done is not done again, without Job and Snapshot.
    let known =
        |done: bool| Some(json!({ "restore": { "claim": "images", "image": "nightly/2.image", "done": done } }));
    let newer = snapshot(&["nightly/3.image"]);
    let (reason, workers, restore, _) = at(with(&newer, None, vec![]), known(false));
    assert_eq!((reason, workers, restore), ("Restoring", false, chosen(false)));
    let (reason, workers, restore, _) = at(Seen::default(), known(true));
    assert_eq!((reason, workers, restore), ("Starting", true, chosen(true)));
}

#[test]
fn a_restore_reads_the_images_and_writes_the_store_that_workers_will_have() {
    for (store, data, ports) in [(None, true, json!([53, 53])), (Some("tikv://d:1"), false, json!([53, 53, 1, 20160]))]
    {
        let universe = universe(json!({ "restoreFrom": { "claim": "tapes", "image": "old/1.image" } }));
        let plan = planned(&universe, store);
        let Some(Child::Job(job)) = plan.children.last() else { panic!("{plan:?}") };
        let pod = json!(job.spec.as_ref().unwrap().template.spec);
        let arguments = pod["containers"][0]["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
        let url = store.unwrap_or("redb:///data/universe.redb");
        let expected = format!("import /images/old/1.image --universe u --store {url} --once uid");
        assert_eq!(arguments.collect::<Vec<_>>().join(" "), expected);
        assert_eq!(pod["volumes"][0]["persistentVolumeClaim"], json!({ "claimName": "tapes", "readOnly": true }));
        let claim = plan.children.iter().find_map(|child| match child {
            Child::PersistentVolumeClaim(claim) => Some(claim.metadata.clone()),
            _ => None,
        });
        assert_eq!(claim.as_ref().and_then(|claim| claim.name.as_deref()), data.then_some("data-u-uvm-0"));
        assert!(claim.is_none_or(|claim| claim.owner_references.is_none()), "it outlives the universe");
        let policy = plan.children.iter().find_map(|child| match child {
            Child::NetworkPolicy(policy) => Some(json!(policy.spec)),
            _ => None,
        });
        let egress = policy.unwrap()["egress"][0]["ports"].as_array().unwrap().clone();
        assert_eq!(Value::Array(egress.iter().map(|port| port["port"].clone()).collect()), ports);
    }
}

#[test]
fn an_image_may_come_from_a_bucket() {
    let s3 = json!({ "endpoint": "http://minio:9000", "bucket": "images", "prefix": "p", "credentialsSecret": "keys" });
    let universe = universe(json!({ "restoreFrom": { "s3": s3, "image": "old/1.image" } }));
    let plan = planned(&universe, Some("tikv://d:1"));
    let Some(Child::Job(job)) = plan.children.last() else { panic!("{plan:?}") };
    let pod = json!(job.spec.as_ref().unwrap().template.spec);
    assert_eq!(pod["containers"][0]["args"][1], json!("s3://images/p/old/1.image"));
    assert!(pod["containers"][0]["env"].to_string().contains("AWS_ACCESS_KEY_ID"), "{pod}");
    assert!(!pod["volumes"].to_string().contains("persistentVolumeClaim"), "{pod}");
    let ports = plan.children.iter().find_map(|child| match child {
        Child::NetworkPolicy(policy) => Some(json!(policy.spec)["egress"][0]["ports"].to_string()),
        _ => None,
    });
    assert!(ports.unwrap().contains("9000"));
    assert_eq!(plan.restore.and_then(|restore| restore.s3).map(|s3| s3.bucket).as_deref(), Some("images"));
}

#[test]
fn of_two_universes_of_one_name_the_older_has_it() {
    let both = [named("a", "1", 10, json!({})), named("b", "2", 11, json!({}))];
    let verdicts: Vec<_> = both.iter().map(|u| plan(u, &nothing(&both), &settings(None)).verdict).collect();
    assert_eq!(verdicts[0].reason, "Starting");
    assert_eq!(verdicts[1].reason, "NameTaken");
    assert!(verdicts[1].message.contains("\"a\""), "{}", verdicts[1].message);
}

#[test]
fn new_recordings_change_the_pods() {
    let digest = |spec: Value| {
        let plan = planned(&universe(spec), Some("tikv://d:1"));
        let Some(Child::Deployment(deployment)) = plan.children.last() else { panic!("{plan:?}") };
        deployment.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().annotations.clone()
    };
    let recorded = |answer: &str| json!({ "mind": { "recorded": [{ "request": "r", "answer": answer }] } });
    assert_eq!(digest(recorded("a")), digest(recorded("a")));
    assert_ne!(digest(recorded("a")), digest(recorded("b")));
}

#[test]
fn the_key_of_a_mind_is_mounted_and_not_written_down() {
    let mind = json!({ "url": "http://m/v1", "model": "m", "apiKeySecret": { "name": "keys", "key": "openai" } });
    let plan = planned(&universe(json!({ "mind": mind })), Some("tikv://d:1"));
    let [.., Child::ConfigMap(config), Child::Deployment(deployment)] = plan.children.as_slice() else {
        panic!("{plan:?}")
    };
    let written = batos_crds::parse_mind(&config.data.as_ref().unwrap()["mind.yaml"]).unwrap().unwrap();
    assert_eq!((written.url.as_deref(), written.api_key_secret), (Some("http://m/v1"), None));
    let pod = deployment.spec.as_ref().unwrap().template.spec.clone().unwrap();
    let secret = pod.volumes.unwrap().into_iter().find_map(|volume| volume.secret).unwrap();
    assert_eq!(secret.secret_name.as_deref(), Some("keys"));
    let file = written.api_key_file.unwrap();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    assert!(mounts.iter().any(|mount| file.starts_with(&mount.mount_path) && mount.name == "mind-key"), "{mounts:?}");
}

#[test]
fn it_is_ready_when_all_workers_of_the_last_change_are() {
    let universe = universe(json!({ "workers": { "replicas": 2 } }));
    let reason = |observed: i64, updated: i32, ready: i32, total: i32| {
        let deployment = serde_json::from_value(json!({
            "metadata": { "name": "u-uvm", "generation": 2 },
            "status": { "observedGeneration": observed, "updatedReplicas": updated, "readyReplicas": ready,
                "replicas": total },
        }))
        .unwrap();
        let all = std::slice::from_ref(&universe);
        let observed = Observed { deployment: Some(&deployment), ..nothing(all) };
        let plan = plan(&universe, &observed, &settings(Some("tikv://d:1")));
        (plan.verdict.reason, plan.workers_ready)
    };
    assert_eq!(reason(2, 2, 2, 2), ("Serving", 2));
    assert_eq!(reason(1, 2, 2, 2), ("Starting", 2), "the change is not seen yet");
    assert_eq!(reason(2, 1, 2, 2), ("Starting", 2), "one is of before");
    assert_eq!(reason(2, 2, 2, 3), ("Starting", 2), "one of before is still there");
}

#[test]
fn a_pod_that_cannot_start_says_why() {
    let universe = universe(json!({}));
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "u-1" },
        "status": { "containerStatuses": [{ "name": "uvm", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } } }] },
    }))
    .unwrap();
    let observed = Observed { pods: vec![&pod], ..nothing(std::slice::from_ref(&universe)) };
    let plan = plan(&universe, &observed, &settings(Some("tikv://d:1")));
    assert_eq!(plan.verdict.reason, "PodsFailing");
    assert_eq!(plan.verdict.message, "0 of 1 workers ready: pod u-1: ErrImagePull: no such image");
}

#[test]
fn codexes_are_laws_of_the_workers_in_any_order_and_an_unreadable_one_stops_all() {
    let universe = universe(json!({ "mind": { "codex": { "rules": [{ "name": "own", "forbidMaking": true }] } } }));
    let codex = |name: &str, rule: &str| -> batos_crds::Codex {
        serde_json::from_value(
            json!({ "apiVersion": "batos.dev/v1alpha1", "kind": "Codex", "metadata": { "name": name },
            "spec": { "universe": "u", "principles": [name], "rules": [{ "name": rule, "forbidSends": ["x"] }] } }),
        )
        .unwrap()
    };
    let (a, b) = (codex("a", "quiet"), codex("b", "quiet"));
    let written = |codexes: &[batos_crds::Codex]| {
        let namesakes = std::slice::from_ref(&universe);
        let plan = plan(&universe, &Observed { codexes, ..nothing(namesakes) }, &settings(Some("tikv://d:1")));
        let config = plan.children.iter().find_map(|child| match child {
            Child::ConfigMap(config) => config.data.clone(),
            _ => None,
        });
        config.unwrap()["mind.yaml"].clone()
    };
    let both = written(&[b.clone(), a.clone()]);
    assert_eq!(both, written(&[a.clone(), b]));
    assert_ne!(both, written(&[a]));
    let laws = batos_crds::parse_mind(&both).unwrap().unwrap().codex.unwrap();
    let names: Vec<&str> = laws.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!((names, laws.principles), (vec!["own", "a/quiet", "b/quiet"], vec!["a".to_owned(), "b".to_owned()]));

    let namesakes = std::slice::from_ref(&universe);
    let observed = Observed { unreadable_codex: Some("c".to_owned()), ..nothing(namesakes) };
    let plan = plan(&universe, &observed, &settings(Some("tikv://d:1")));
    assert_eq!((plan.children.len(), plan.verdict.reason), (0, "CodexInvalid"));
}
