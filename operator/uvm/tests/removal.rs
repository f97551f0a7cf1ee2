//! Prototypes that go with their resource: not while others need them, for good, and all of them at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use batos_covenant::{
    ApplyCommand, ErrorKind, OkReply, PrototypeDefinition, RemoveCommand, Reply, SlotDefinition, Wire, decode,
};
use batos_graph::ObjectId;
use batos_uvm::universe::{OutboxEvent, Retention, Universe, UniverseError, Work, check};
use common::house::{House, deliver, eval, send};
use serde_json::json;

async fn done(universe: &Universe, name: &str, work: Work) -> Result<OkReply, UniverseError> {
    match deliver(universe, ObjectId::of_name(name), work, None).await? {
        Reply::Ok(reply) => Ok(reply),
        Reply::Error { error } => panic!("{error}"),
    }
}

/// `fence` has uid, generation and term.
type Fence<'a> = (&'a str, i64, i64);

async fn apply(universe: &Universe, name: &str, parents: &[&str], fence: Fence<'_>) -> Result<OkReply, UniverseError> {
    let slot = |name: &str, value: Option<Wire>, method: Option<&str>| SlotDefinition {
        name: name.to_owned(),
        value,
        method: method.map(str::to_owned),
        intent: None,
        constant: false,
    };
    let slots = vec![slot("n", Some(0.into()), None), slot("next", None, Some("next = ( ^n + 1 )"))];
    let parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
    let definition = PrototypeDefinition { parents, slots, ..PrototypeDefinition::default() };
    let (uid, generation, term) = (fence.0.to_owned(), fence.1, fence.2);
    let apply = ApplyCommand { definition, uid, generation, term, enforce: false };
    done(universe, name, Work::Apply { name: name.to_owned(), apply }).await
}

async fn remove(universe: &Universe, name: &str, (uid, generation, term): Fence<'_>) -> Result<Wire, UniverseError> {
    let remove = RemoveCommand { uid: uid.to_owned(), generation, term };
    let reply = done(universe, name, Work::Remove { name: name.to_owned(), remove }).await?;
    Ok(reply.value["removed"].clone())
}

fn kind(result: Result<impl Sized, UniverseError>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

async fn is_named(universe: &Universe, name: &str) -> bool {
    universe.list(None).await.unwrap().objects.iter().any(|listed| listed.name == name)
}

async fn assert_sound(house: &House) {
    let problems = check(house.store.as_ref(), "u", |_| {}).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[tokio::test]
async fn what_was_removed_is_nowhere_but_in_the_history() {
    let house = House::new();
    let universe = house.keeping(Retention::default()).await;
    // Another worker, which knows the object from before.
    let other = house.keeping(Retention::default()).await;
    apply(&universe, "lamp", &[], ("a", 1, 1)).await.unwrap();
    send(&universe, "lamp", "n:", vec![5.into()], None).await;
    assert_eq!(send(&other, "lamp", "next", vec![], None).await, json!(6));
    let id = universe.resolve("lamp").await.unwrap();

    assert_eq!(remove(&universe, "lamp", ("a", 2, 1)).await.unwrap(), json!(true));
    assert_eq!(remove(&universe, "lamp", ("a", 2, 1)).await.unwrap(), json!(true), "again");
    for name in ["lamp", "traits lamp"] {
        assert!(!is_named(&universe, name).await, "{name}");
        assert_eq!(kind(universe.resolve(name).await), Some(ErrorKind::NoSuchObject), "{name}");
    }
    for worker in [&universe, &other] {
        let next = batos_covenant::SendCommand { selector: "next".to_owned(), arguments: Vec::new() };
        let sent = deliver(worker, id, Work::Send { send: next, made: None }, None).await;
        let failed = match sent {
            Ok(Reply::Error { error }) => Some(error.kind),
            sent => kind(sent),
        };
        assert_eq!(failed, Some(ErrorKind::NoSuchObject));
        let method = Work::CreateMethod { name: "x".to_owned(), source: "x = ( 1 )".to_owned() };
        assert_eq!(kind(deliver(worker, id, method, None).await), Some(ErrorKind::NoSuchObject));
        assert_eq!(
            kind(deliver(worker, id, Work::Undo { slot: "n".to_owned() }, None).await),
            Some(ErrorKind::NoSuchObject)
        );
        assert_eq!(kind(worker.full_state(id, &Default::default()).await), Some(ErrorKind::NoSuchObject));
    }
    let changes = universe.history(id, Some("n"), None).await.unwrap().changes;
    assert_eq!((changes[0].was.clone(), changes[0].became.clone()), (Some(json!(5)), None));
    assert_eq!(changes[0].by.as_deref(), Some("remove, generation 2 from test"));
    let rows = house.rows().await;
    let events = rows.iter().filter_map(|(_, row)| decode::<OutboxEvent>(&row.bytes).ok());
    let told = events.filter(|(event, _)| event.object == "lamp").count();
    assert_eq!(told, 3, "made, changed and removed, under the name that it had");
    assert_sound(&house).await;
}

#[tokio::test]
async fn what_others_need_stays_until_they_do_not() {
    let house = House::new();
    let universe = house.keeping(Retention::default()).await;
    apply(&universe, "elder", &[], ("a", 1, 1)).await.unwrap();
    apply(&universe, "child", &["elder"], ("b", 1, 1)).await.unwrap();
    let refused = remove(&universe, "elder", ("a", 2, 1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    assert_eq!(refused.to_string(), "elder cannot go while others refer to it: traits child");
    remove(&universe, "child", ("b", 2, 1)).await.unwrap();
    apply(&universe, "holder", &[], ("c", 1, 1)).await.unwrap();
    eval(&universe, "holder n: elder copy").await;
    let refused = remove(&universe, "elder", ("a", 2, 1)).await.unwrap_err().to_string();
    assert!(refused.starts_with("elder cannot go while others refer to it: "), "a clone delegates to it: {refused}");
    assert_eq!(eval(&universe, "holder n next").await, json!(1));
    eval(&universe, "holder n: elder").await;
    let refused = remove(&universe, "elder", ("a", 2, 1)).await.unwrap_err().to_string();
    assert!(refused.contains("holder"), "{refused}");
    assert!(is_named(&universe, "elder").await);
    assert_sound(&house).await;
}

#[tokio::test]
async fn the_fence_holds_and_outlives_the_object() {
    let house = House::new();
    let universe = house.keeping(Retention::default()).await;
    let made = apply(&universe, "lamp", &[], ("a", 4, 7)).await.unwrap();
    for (fence, expected) in [
        (("a", 4, 6), Err(ErrorKind::Stale)),
        (("a", 3, 7), Err(ErrorKind::Stale)),
        (("another", 9, 9), Ok(json!(false))),
        (("a", 5, 7), Ok(json!(true))),
    ] {
        let came = remove(&universe, "lamp", fence).await.map_err(|error| error.kind());
        assert_eq!(came, expected, "{fence:?}");
    }
    for fence in [("a", 5, 6), ("a", 4, 7), ("a", 5, 7), ("a", 6, 8), ("b", 1, 6)] {
        assert_eq!(kind(apply(&universe, "lamp", &[], fence).await), Some(ErrorKind::Stale), "{fence:?}");
    }
    // Of what was never applied, too.
    assert_eq!(remove(&universe, "never", ("n", 2, 7)).await.unwrap(), json!(true));
    assert_eq!(kind(apply(&universe, "never", &[], ("n", 1, 7)).await), Some(ErrorKind::Stale));

    send_is_new(&universe, made.value["object"].clone()).await;
    assert_eq!(remove(&universe, "toolForge", ("a", 9, 9)).await.unwrap(), json!(false), "no manifest's object");
    assert_sound(&house).await;
}

/// Another resource of the name begins anew, under the same id, and revisions go on.
async fn send_is_new(universe: &Universe, id: Wire) {
    let made = apply(universe, "lamp", &[], ("b", 1, 7)).await.unwrap();
    assert_eq!((made.value["object"].clone(), made.rev), (id, 3));
    assert_eq!(made.value["drift"], json!([]));
    assert_eq!(send(universe, "lamp", "next", vec![], None).await, json!(1));
}

/// Whichever is first: the child is never there without its parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_child_that_comes_as_its_parent_goes_finds_it_or_waits() {
    let house = House::new();
    let (one, two) = (house.keeping(Retention::default()).await, house.keeping(Retention::default()).await);
    let mut seen = [0; 2];
    for round in 0..60_i64 {
        let (elder, child) = (format!("elder{round}"), format!("child{round}"));
        apply(&one, &elder, &[], ("a", 1, 1)).await.unwrap();
        let parents = [elder.as_str()];
        let removing = remove(&one, &elder, ("a", 2, 1));
        let applying = apply(&two, &child, &parents, ("b", 1, 1));
        let (removed, applied) = match round % 2 {
            0 => tokio::join!(removing, applying),
            _ => {
                let (applied, removed) = tokio::join!(applying, removing);
                (removed, applied)
            }
        };
        match (kind(removed), kind(applied)) {
            (None, Some(ErrorKind::NoSuchObject)) => seen[0] += 1,
            (Some(ErrorKind::InUse), None) => seen[1] += 1,
            other => panic!("{other:?} in round {round}"),
        }
    }
    assert_sound(&house).await;
    assert!(seen[0] + seen[1] == 60, "{seen:?}");
}
