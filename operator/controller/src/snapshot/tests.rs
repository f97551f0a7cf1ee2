use std::time::Duration;

use batos_crds::Universe;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use serde_json::{Value, json};

use super::plan::*;
use crate::{context::Settings, workload::Child};

const CREATED: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z
const HOUR: i64 = 3600;

fn settings() -> Settings {
    Settings {
        nats: "nats://bus:4333".into(),
        root: "batos".into(),
        worker_image: "batos:1".into(),
        default_store: None,
        volume_size: "1Gi".into(),
        namespace: None,
        drift_check: Duration::from_secs(600),
        proposal_check: Duration::from_secs(30),
        decisions: None,
        network_policies: true,
        own_namespace: "system".into(),
        own_name: String::new(),
        lease: Duration::from_secs(15),
    }
}

fn snapshot(spec: Value, status: Value) -> batos_crds::Snapshot {
    let mut all = json!({ "universe": "u", "claim": "images" });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Snapshot",
        "metadata": { "name": "s", "namespace": "default", "uid": "uid", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": all, "status": status,
    }))
    .unwrap()
}

fn universe(workers: i32, spec: Value) -> Universe {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Universe", "metadata": { "name": "u" }, "spec": spec,
        "status": { "workersReady": workers },
    }))
    .unwrap()
}

fn job(due: i64, owner: &str, condition: Option<&str>) -> Job {
    let conditions: Vec<_> =
        condition.iter().map(|c| json!({ "type": c, "status": "True", "message": "no more" })).collect();
    serde_json::from_value(json!({
        "metadata": { "name": format!("s-{due}"), "uid": format!("job-{due}"),
            "ownerReferences": [{ "apiVersion": "", "kind": "Snapshot", "name": "s", "uid": owner }] },
        "status": { "conditions": conditions },
    }))
    .unwrap()
}

fn pod(due: i64, code: i32, message: &str) -> Pod {
    let owner = json!({ "apiVersion": "", "kind": "Job", "name": "", "uid": format!("job-{due}") });
    let ended = json!({ "exitCode": code, "message": message, "startedAt": "2026-01-01T06:00:01Z" });
    serde_json::from_value(json!({
        "metadata": { "name": "p", "ownerReferences": [owner] },
        "status": { "containerStatuses": [{ "name": "image", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": { "terminated": ended } }] },
    }))
    .unwrap()
}

fn written() -> String {
    json!({ "universe": "u", "file": "f", "bytes": 900, "objects": 2, "rows": 3, "digest": "d", "milliseconds": 5 })
        .to_string()
}

fn image(file: &str) -> Value {
    json!({ "file": file, "taken": "2026-01-01T00:00:00Z", "bytes": 1, "objects": 1, "rows": 1, "digest": "",
        "milliseconds": 1 })
}

fn taken(due: i64, files: &[&str]) -> Value {
    json!({ "lastDue": due, "images": files.iter().map(|file| image(file)).collect::<Vec<_>>(),
        "conditions": [{ "type": "Ready", "status": "True", "reason": "Taken", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }] })
}

/// Reason, the Job that is made, the images.
fn told(plan: &Plan) -> (&str, Option<String>, Vec<&str>) {
    let job = plan.children.iter().find_map(|child| match child {
        Child::Job(job) => job.metadata.name.clone(),
        _ => None,
    });
    (plan.verdict.reason, job, plan.images.iter().map(|image| image.file.as_str()).collect())
}

#[test]
fn an_image_is_taken_once_when_nothing_says_how_often() {
    let ready = universe(1, json!({}));
    let at = |universe: Option<&Universe>, status: Value, jobs: &[Job], pods: &[Pod]| {
        let (jobs, pods) = (jobs.iter().collect(), pods.iter().collect());
        plan(&snapshot(json!({}), status), &Observed { universe, jobs, pods, now: CREATED + HOUR }, &settings())
    };
    let new = || Some(format!("s-{CREATED}"));
    assert_eq!(told(&at(None, json!({}), &[], &[])), ("UniverseMissing", None, vec![]));
    assert_eq!(told(&at(Some(&universe(0, json!({}))), json!({}), &[], &[])), ("UniverseNotReady", None, vec![]));
    assert_eq!(told(&at(Some(&ready), json!({}), &[], &[])), ("Exporting", new(), vec![]));
    let other = [job(CREATED, "another", Some("Complete"))];
    assert_eq!(told(&at(Some(&ready), json!({}), &other, &[])), ("Exporting", new(), vec![]), "of one that is gone");
    let runs = [job(CREATED, "uid", None)];
    assert_eq!(told(&at(Some(&ready), json!({}), &runs, &[])), ("Exporting", None, vec![]));
    let retried = at(Some(&ready), json!({}), &runs, &[pod(CREATED, 1, "batos: no responders\n")]);
    assert_eq!(told(&retried), ("ExportFailed", None, vec![]));
    assert_eq!(retried.verdict.message, "batos: no responders; it is tried again");
    let failed = [job(CREATED, "uid", Some("Failed"))];
    assert_eq!(at(Some(&ready), json!({}), &failed, &[]).verdict.message, "no more");
    let done = [job(CREATED, "uid", Some("Complete"))];
    assert_eq!(told(&at(Some(&ready), json!({}), &done, &[])), ("Exporting", None, vec![]), "its pod has not told yet");
    let plan = at(None, json!({}), &done, &[pod(CREATED, 0, &written())]);
    assert_eq!(told(&plan), ("Taken", None, vec!["s/20260101T000000Z.image"]));
    assert_eq!(plan.verdict.message, "s/20260101T000000Z.image: 2 objects in 900 bytes");
    let status = json!(plan.images[0]);
    assert_eq!((&status["taken"], &status["digest"]), (&json!("2026-01-01T06:00:01Z"), &json!("d")));
    assert_eq!((plan.last_due, plan.next), (Some(CREATED), None));
    // Neither again, nor lost, when the Job is gone.
    let plan = at(Some(&ready), taken(CREATED, &["a"]), &[], &[]);
    assert_eq!(told(&plan), ("Taken", None, vec!["a"]));
    assert_eq!(told(&at(Some(&ready), taken(CREATED, &["a"]), &done, &[pod(CREATED, 0, &written())])).2, ["a"]);
}

#[test]
fn a_schedule_counts_from_the_creation_and_makes_up_for_the_last_that_was_missed() {
    let ready = universe(1, json!({}));
    let at = |now: i64, status: Value, jobs: &[Job], pods: &[Pod]| {
        let (jobs, pods) = (jobs.iter().collect(), pods.iter().collect());
        let snapshot = snapshot(json!({ "every": "6h", "keep": 2 }), status);
        plan(&snapshot, &Observed { universe: Some(&ready), jobs, pods, now }, &settings())
    };
    let second = CREATED + 6 * HOUR;
    let plan = at(second - 1, taken(CREATED, &["a"]), &[], &[]);
    assert_eq!((told(&plan), plan.next), (("Taken", None, vec!["a"]), Some(Duration::from_secs(1))));
    let plan = at(second + 60, taken(CREATED, &["a"]), &[], &[]);
    assert_eq!(told(&plan), ("Taken", Some(format!("s-{second}")), vec!["a"]), "what there is stays good");
    assert_eq!(plan.next, Some(Duration::from_secs(6 * 3600 - 60)));
    let plan = at(CREATED + 31 * HOUR, taken(CREATED, &["a"]), &[], &[]);
    assert_eq!(told(&plan).1, Some(format!("s-{}", CREATED + 30 * HOUR)), "one, not one for each that was missed");
    // A run that is late does not run beside the next.
    let running = [job(second, "uid", None)];
    assert_eq!(told(&at(second + 7 * HOUR, taken(CREATED, &["a"]), &running, &[])), ("Taken", None, vec!["a"]));
    let failed = [job(second, "uid", Some("Failed"))];
    assert_eq!(told(&at(second + 60, taken(CREATED, &["a"]), &failed, &[])), ("ExportFailed", None, vec!["a"]));
    assert_eq!(
        told(&at(second + 6 * HOUR, taken(CREATED, &["a"]), &failed, &[])).1,
        Some(format!("s-{}", second + 6 * HOUR))
    );
    // A run that ended while the next became due.
    let done = [job(CREATED, "uid", Some("Complete"))];
    let late = at(second, json!({}), &done, &[pod(CREATED, 0, &written())]);
    assert_eq!(told(&late), ("Taken", Some(format!("s-{second}")), vec!["s/20260101T000000Z.image"]));
    // Of three images two stay.
    let done = [job(second, "uid", Some("Complete"))];
    let plan = at(second + 60, taken(CREATED, &["b", "a"]), &done, &[pod(second, 0, &written())]);
    assert_eq!(told(&plan), ("Taken", None, vec!["s/20260101T060000Z.image", "b"]));
}

#[test]
fn the_job_writes_to_the_claim_as_the_architect() {
    let bus = json!({ "bus": { "root": "r", "credentialsSecret": "logins" } });
    let (snapshot, universe) = (snapshot(json!({ "keep": 5 }), json!({})), universe(1, bus));
    let observed = Observed { universe: Some(&universe), jobs: vec![], pods: vec![], now: CREATED };
    let plan = plan(&snapshot, &observed, &settings());
    let [Child::NetworkPolicy(policy), Child::Job(job)] = plan.children.as_slice() else { panic!("{plan:?}") };
    let ports = json!(policy.spec)["egress"][0]["ports"].as_array().unwrap().clone();
    assert_eq!(ports.iter().map(|port| port["port"].clone()).collect::<Vec<_>>(), [53, 53, 4333]);
    let pod = json!(job.spec.as_ref().unwrap().template.spec);
    let container = &pod["containers"][0];
    let arguments = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
    assert_eq!(
        arguments.collect::<Vec<_>>().join(" "),
        "export /images/s/20260101T000000Z.image --keep 5 --report /dev/termination-log --universe u --root r"
    );
    let text = container["env"].to_string();
    assert!(text.contains("nats://architect:$(BATOS_NATS_PASSWORD)@bus:4333"), "{text}");
    assert!(text.contains("\"key\":\"architect\""), "{text}");
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "images");
    assert_eq!((&pod["restartPolicy"], &pod["automountServiceAccountToken"]), (&json!("Never"), &json!(false)));
}

#[test]
fn into_a_bucket_it_goes_with_the_keys_of_the_secret_and_no_volume() {
    for (prefix, endpoint, url, port) in [
        ("", "https://s3.example", "s3://images/s/20260101T000000Z.image", 443),
        ("a/b/", "http://minio:9000", "s3://images/a/b/s/20260101T000000Z.image", 9000),
    ] {
        let s3 = json!({ "endpoint": endpoint, "bucket": "images", "prefix": prefix, "credentialsSecret": "keys" });
        let mut snapshot = snapshot(json!({ "s3": s3 }), json!({}));
        snapshot.spec.claim = None;
        let universe = universe(1, json!({}));
        let observed = Observed { universe: Some(&universe), jobs: vec![], pods: vec![], now: CREATED };
        let plan = plan(&snapshot, &observed, &settings());
        let [Child::NetworkPolicy(policy), Child::Job(job)] = plan.children.as_slice() else { panic!("{plan:?}") };
        let ports = json!(policy.spec)["egress"][0]["ports"].as_array().unwrap().clone();
        assert_eq!(ports.last().unwrap()["port"], json!(port));
        let pod = json!(job.spec.as_ref().unwrap().template.spec);
        assert_eq!(pod["containers"][0]["args"][1], json!(url));
        assert!(!pod["volumes"].to_string().contains("persistentVolumeClaim"), "{pod}");
        let variables = pod["containers"][0]["env"].as_array().unwrap();
        let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name).unwrap().clone();
        assert_eq!(variable("AWS_ENDPOINT_URL")["value"], json!(endpoint));
        assert_eq!(variable("AWS_REGION")["value"], json!("us-east-1"));
        assert_eq!(
            variable("AWS_SECRET_ACCESS_KEY")["valueFrom"]["secretKeyRef"],
            json!({ "name": "keys", "key": "secretAccessKey" })
        );
    }
}
