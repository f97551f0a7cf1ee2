//! The executor against an API server that is played.

use std::pin::pin;

use http::{Request, Response};
use kube::client::Body;
use tower_test::mock::{self, Handle};

use super::*;
use crate::bus::Nats;
use batos_crds::{Universe, UniverseStatus};
use kube::runtime::reflector;

type Server = Handle<Request<Body>, Response<Body>>;

fn context() -> (Context, Server) {
    let (service, server) = mock::pair::<Request<Body>, Response<Body>>();
    let settings = Settings {
        nats: String::new(),
        root: String::new(),
        worker_image: String::new(),
        default_store: None,
        volume_size: String::new(),
        namespace: None,
        drift_check: std::time::Duration::from_secs(600),
        proposal_check: std::time::Duration::from_secs(30),
        decisions: None,
        network_policies: true,
        own_namespace: String::new(),
        own_name: String::new(),
        lease: std::time::Duration::from_secs(15),
    };
    let stores = Stores {
        universes: reflector::store().0,
        prototypes: reflector::store().0,
        pools: reflector::store().0,
        facets: reflector::store().0,
        snapshots: reflector::store().0,
        codexes: reflector::store().0,
        proposals: reflector::store().0,
        decisions: reflector::store().0,
        deployments: reflector::store().0,
        stateful_sets: reflector::store().0,
        jobs: reflector::store().0,
        pods: reflector::store().0,
    };
    // One of two tests at once is told that there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    (
        Context::new(
            Client::new(service, "default"),
            settings,
            stores,
            Leadership::of_term(1),
            Arc::new(crate::model_pool::Http::new().unwrap()),
            Arc::new(Nats::default()),
        ),
        server,
    )
}

fn object() -> ObjectMeta {
    ObjectMeta {
        name: Some("u".into()),
        namespace: Some("default".into()),
        uid: Some("1".into()),
        generation: Some(2),
        ..ObjectMeta::default()
    }
}

fn report(old: Option<&UniverseStatus>) -> Report {
    let before = old.map(|status| status.conditions.clone()).unwrap_or_default();
    let fields = json!({ "workersReady": 1, "store": null });
    Report::new(old, &before, fields, vec![Verdict::waiting("Starting", "0 of 1")])
}

#[tokio::test]
async fn an_unreadable_object_is_told_so_once_and_keeps_the_rest_of_its_status() {
    let (context, mut server) = context();
    let invalid = InvalidObject { error: "unknown field `colour`".into(), metadata: object() };
    let live = |status: Value| {
        json!({ "apiVersion": "batos.dev/v1alpha1", "kind": "Universe",
            "metadata": { "name": "u", "namespace": "default", "uid": "1" }, "spec": { "colour": 1 }, "status": status })
    };
    let served = tokio::spawn(async move {
        let (asked, _) = answer(&mut server, 200, live(json!({ "store": "tikv://pd:2379" }))).await;
        let (_, told) = answer(&mut server, 200, accepted()).await;
        let (event, _) = answer(&mut server, 201, json!({})).await;
        assert!(event.starts_with("POST /apis/events.k8s.io/"), "{event}");
        // What it says already it is not told again.
        answer(&mut server, 200, live(told["status"].clone())).await;
        (asked, told)
    });
    context.refuse::<Universe>(&invalid).await.unwrap();
    context.refuse::<Universe>(&invalid).await.unwrap();
    let (asked, told) = served.await.unwrap();
    assert!(asked.starts_with("GET /apis/batos.dev/v1alpha1/namespaces/default/universes/u"), "{asked}");
    assert_eq!(told["status"]["conditions"][0]["reason"], "Invalid");
    assert_eq!(told["status"]["store"], "tikv://pd:2379");
}

/// Answers one request, and gives back what it was.
async fn answer(server: &mut Server, status: u16, body: Value) -> (String, Value) {
    let (request, respond) = pin!(server).next_request().await.expect("a request");
    let asked = format!("{} {}", request.method(), request.uri());
    let sent = request.into_body().collect_bytes().await.unwrap();
    let body = Body::from(serde_json::to_vec(&body).unwrap());
    respond.send_response(Response::builder().status(status).body(body).unwrap());
    (asked, serde_json::from_slice(&sent).unwrap_or_default())
}

fn accepted() -> Value {
    json!({ "apiVersion": "batos.dev/v1alpha1", "kind": "Universe", "metadata": { "name": "u" } })
}

#[tokio::test]
async fn a_status_is_applied_under_the_field_manager_and_only_when_it_differs() {
    let (context, mut server) = context();
    let served = tokio::spawn(async move { answer(&mut server, 200, accepted()).await });
    context.report::<Universe>(&object(), report(None)).await.unwrap();
    let (asked, sent) = served.await.unwrap();
    assert!(asked.starts_with("PATCH /apis/batos.dev/v1alpha1/namespaces/default/universes/u/status?"), "{asked}");
    assert!(asked.contains("fieldManager=batos-operator"), "{asked}");
    assert_eq!(sent["metadata"]["uid"], "1");
    assert_eq!(sent["status"]["observedGeneration"], 2);
    assert_eq!(sent["status"]["conditions"][0]["reason"], "Starting");
    assert!(sent["status"].get("store").is_none());

    // The server of this one is gone: any request would fail.
    let status: UniverseStatus = serde_json::from_value(sent["status"].clone()).unwrap();
    context.report::<Universe>(&object(), report(Some(&status))).await.unwrap();
}

#[tokio::test]
async fn an_object_that_went_meanwhile_is_no_failure_and_another_answer_is() {
    for (code, reason, fails) in [(404, "NotFound", false), (409, "Conflict", true), (403, "Forbidden", true)] {
        let (context, mut server) = context();
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason,
            "code": code });
        let served = tokio::spawn(async move { answer(&mut server, code, status).await });
        let ended = context.report::<Universe>(&object(), report(None)).await;
        served.await.unwrap();
        assert_eq!(ended.is_err(), fails, "{code}: {ended:?}");
    }
}
