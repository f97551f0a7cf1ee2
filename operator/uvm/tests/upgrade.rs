//! A newer image comes into a universe that lives.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::{Arc, atomic::AtomicI64};

use batos_covenant::{ImageChange, ImageEvent, decode};
use batos_graph::{Key, KeySpace, ObjectId, Place, Record, Slot, SlotKind, Value, Versioned};
use batos_uvm::{
    image::{INTEGER_TRAITS, ROOT_TRAITS},
    universe::{Image, ImageRow, Opening, Universe, UniverseError, admit_row, check},
};
use common::house::{Flaky, House, apply, change, create_method, eval, restore, send};

const GADGET: ObjectId = ObjectId::well_known(200);
const WIDGET: ObjectId = ObjectId::well_known(201);

fn method(name: &str, source: &str) -> Slot {
    Slot { name: name.to_owned(), kind: SlotKind::Method(source.to_owned()) }
}

fn object(name: &str, slots: Vec<Slot>) -> Record {
    let parent = Slot { name: "parent".to_owned(), kind: SlotKind::Parent(Value::Ref(ROOT_TRAITS)) };
    let slots = [vec![parent], slots].concat();
    Record { name: Some(name.to_owned()), is_trait: true, is_kernel: true, slots, ..Record::default() }
}

/// An image with slots put into `Integer` or taken from it, and more objects.
fn image(integer: &[(&str, Option<&str>)], objects: Vec<(ObjectId, Record)>) -> Image {
    let mut image = Image::shipped().unwrap();
    let (_, record) = image.objects.iter_mut().find(|(id, _)| *id == INTEGER_TRAITS).unwrap();
    for (name, source) in integer {
        record.slots.retain(|slot| slot.name != *name);
        record.slots.extend(source.map(|source| method(name, source)));
    }
    image.objects.extend(objects);
    image
}

/// `Integer` has `older` and another `shared`, and there is a gadget.
fn older() -> Image {
    let gadget = object("Gadget", vec![method("go", "go = ( 1 )")]);
    image(&[("older", Some("older = ( 1 )")), ("shared", Some("shared = ( 1 )"))], vec![(GADGET, gadget)])
}

/// `Integer` has `newer` and another `shared`, and there is a widget instead.
fn newer() -> Image {
    let widget = object("Widget", vec![method("go", "go = ( 2 )")]);
    image(&[("newer", Some("newer = ( 2 )")), ("shared", Some("shared = ( 2 )"))], vec![(WIDGET, widget)])
}

fn heads(rows: &[(Key, Versioned)]) -> Vec<(ObjectId, u64, Record)> {
    let head = |(key, row): &(Key, Versioned)| match Place::of(key) {
        Some(Place::Head(id)) => Some((id, row.rev, Record::decode(&row.bytes).unwrap())),
        _ => None,
    };
    rows.iter().filter_map(head).collect()
}

fn of_users(rows: &[(Key, Versioned)]) -> Vec<(ObjectId, u64, Record)> {
    heads(rows).into_iter().filter(|(_, _, record)| !record.is_kernel).collect()
}

/// The image as it lives, without revisions and what made them.
fn kernel(rows: &[(Key, Versioned)]) -> Vec<(ObjectId, Record)> {
    let kernel = heads(rows).into_iter().filter(|(.., record)| record.is_kernel);
    kernel.map(|(id, _, record)| (id, Record { cause: None, ..record })).collect()
}

fn shipped(mut image: Image) -> Vec<(ObjectId, Record)> {
    let key = |id: ObjectId| KeySpace::new("u").head(id);
    image.objects.sort_by_key(|(id, _)| key(*id));
    image.objects
}

/// What was told of images, in order.
async fn told(universe: &Universe) -> Vec<ImageEvent> {
    let mut told = Vec::new();
    for shard in 0..=u8::MAX {
        let events = universe.outbox(shard, None).await.unwrap();
        told.extend(events.into_iter().filter(|(_, event)| event.kind == "image").map(|(_, event)| event));
    }
    told.iter().map(|event| decode(&event.payload).unwrap().0).collect()
}

fn slots(object: &str, slots: &[&str]) -> ImageChange {
    ImageChange { object: object.to_owned(), slots: slots.iter().map(|slot| (*slot).to_owned()).collect() }
}

async fn assert_sound(house: &House) {
    let problems = check(house.store.as_ref(), "u", |_| {}).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[tokio::test]
async fn a_newer_image_replaces_an_older_one_and_leaves_the_users_objects_alone() {
    let house = House::new();
    let before = house.open(older()).await.unwrap();
    assert!(told(&before).await.is_empty(), "a beginning is no news");
    apply(&before, "account", &[]).await;
    send(&before, "account", "n:", vec![7.into()], None).await;
    create_method(&before, "account", "twice", "twice = ( n * 2 + 3 shared )").await;
    assert_eq!(send(&before, "account", "twice", vec![], None).await, 15);
    assert_eq!(eval(&before, "3 older + Gadget go").await, 2);
    let users = of_users(&house.rows().await);

    let after = house.open(newer()).await.unwrap();
    let rows = house.rows().await;
    assert_eq!(kernel(&rows), shipped(newer()));
    assert_eq!(of_users(&rows), users);
    assert_sound(&house).await;
    for universe in [&after, &before] {
        assert_eq!(send(universe, "account", "twice", vec![], None).await, 16, "nothing of the old code is cached");
        assert_eq!(eval(universe, "3 newer + Widget go").await, 4);
        assert_eq!(eval(universe, "[ 3 older ] on: MessageNotUnderstood do: [ :e | #gone ]").await, "gone");
    }
    let wanted = ImageEvent {
        batos: env!("CARGO_PKG_VERSION").to_owned(),
        added: vec!["Widget".to_owned()],
        changed: vec![slots("Integer", &["newer", "shared", "older"])],
        removed: vec![],
        kept: vec![],
    };
    let gadget = ImageEvent { added: vec![], changed: vec![], removed: vec!["Gadget".to_owned()], ..wanted.clone() };
    assert_eq!(told(&after).await, [wanted, gadget]);

    // The worker that is left behind ends; the same image again is nothing to do.
    assert!(matches!(before.confirm_version().await, Err(UniverseError::Newer { .. })));
    after.confirm_version().await.unwrap();
    let rows = house.rows().await;
    house.open(newer()).await.unwrap();
    assert_eq!(house.rows().await, rows);
}

#[tokio::test]
async fn what_was_changed_lives_on_and_is_told() {
    let house = House::new();
    let universe = house.open(older()).await.unwrap();
    change(&universe, INTEGER_TRAITS, |record| {
        record.slots.retain(|slot| slot.name != "older" && slot.name != "shared");
        record.slots.push(method("shared", "shared = ( 100 )"));
        record.slots.push(method("own", "own = ( 200 )"));
    })
    .await;
    change(&universe, GADGET, |record| record.slots.push(method("stay", "stay = ( 300 )"))).await;
    let universe = house.open(newer()).await.unwrap();
    assert_eq!(eval(&universe, "{3 shared. 3 own. 3 newer. Gadget stay}").await, serde_json::json!([100, 200, 2, 300]));
    let kept: Vec<ImageChange> = told(&universe).await.into_iter().flat_map(|event| event.kept).collect();
    assert_eq!(kept, [slots("Integer", &["shared"]), slots("Gadget", &[])]);
    assert_sound(&house).await;
    // It is told once, and the next image finds it as it is.
    let universe = house.open(older()).await.unwrap();
    assert_eq!(eval(&universe, "{3 shared. 3 own. 3 older. Gadget go}").await, serde_json::json!([100, 200, 1, 1]));
}

#[tokio::test]
async fn a_prompt_that_the_architect_amended_lives_on() {
    let house = House::new();
    let universe = house.open(older()).await.unwrap();
    eval(&universe, "toolForge system: 'Be brief.'. 1").await;
    let mut newer = newer();
    let (_, forge) = newer.objects.iter_mut().find(|(_, record)| record.name.as_deref() == Some("toolForge")).unwrap();
    for slot in &mut forge.slots {
        if let SlotKind::Assignable(Value::Str(text)) = &mut slot.kind {
            text.push_str(" Be quick.");
        }
    }
    let universe = house.open(newer).await.unwrap();
    assert_eq!(eval(&universe, "toolForge system").await, "Be brief.");
    assert_eq!(told(&universe).await[0].kept, [slots("toolForge", &["system"])]);
    assert_sound(&house).await;
}

#[tokio::test]
async fn an_object_goes_only_when_nobody_holds_it() {
    for hold in ["account", "code"] {
        let house = House::new();
        let universe = house.open(older()).await.unwrap();
        apply(&universe, "account", &[]).await;
        match hold {
            "account" => drop(eval(&universe, "account n: Gadget. 1").await),
            _ => create_method(&universe, "account", "late", "late = ( Gadget go )").await,
        }
        let universe = house.open(newer()).await.unwrap();
        assert_eq!(eval(&universe, "Gadget go").await, 1, "held by {hold}");
        assert_eq!(told(&universe).await.last().unwrap().kept, [slots("Gadget", &[])]);
        match hold {
            "account" => drop(eval(&universe, "account n: 0. 1").await),
            _ => create_method(&universe, "account", "late", "late = ( 0 )").await,
        }
        house.open(image(&[], vec![])).await.unwrap();
        assert_eq!(kernel(&house.rows().await), shipped(image(&[], vec![])));
        assert_sound(&house).await;
    }
}

#[tokio::test]
async fn objects_that_hold_only_each_other_go_together() {
    let house = House::new();
    let mut cycle = older();
    let slot = Slot { name: "other".to_owned(), kind: SlotKind::Constant(Value::Ref(WIDGET)) };
    cycle.objects.iter_mut().find(|(id, _)| *id == GADGET).unwrap().1.slots.push(slot);
    cycle.objects.push((WIDGET, object("Widget", vec![method("back", "back = ( Gadget )")])));
    house.open(cycle).await.unwrap();
    house.open(image(&[], vec![])).await.unwrap();
    assert_eq!(kernel(&house.rows().await), shipped(image(&[], vec![])));
}

#[tokio::test]
async fn a_name_that_the_universe_uses_stays_its_own() {
    let house = House::new();
    let universe = house.open(older()).await.unwrap();
    apply(&universe, "Widget", &[]).await;
    let universe = house.open(newer()).await.unwrap();
    assert_eq!(eval(&universe, "Widget n").await, 0);
    assert_eq!(told(&universe).await[0].kept, [slots("Widget", &["name"])]);
    assert_sound(&house).await;
}

/// The power goes after every number of commits there can be.
#[tokio::test]
async fn an_interrupted_upgrade_goes_on() {
    let mut commits = 0;
    loop {
        let house = House::new();
        house.open(older()).await.unwrap();
        let small = |store| {
            let opening = Opening { upgrade_bytes: 1, ..house.opening(newer()) };
            Universe::open_with("u", store, opening)
        };
        let flaky = Arc::new(Flaky { inner: house.store.clone(), left: AtomicI64::new(commits) });
        let done = small(flaky).await.is_ok();
        let universe = small(house.store.clone()).await.unwrap();
        assert_eq!(kernel(&house.rows().await), shipped(newer()), "after {commits} commits");
        assert_eq!(eval(&universe, "3 newer + 3 shared").await, 4);
        let told = told(&universe).await;
        let changed: Vec<_> = told.iter().flat_map(|event| &event.changed).collect();
        assert_eq!(changed, [&slots("Integer", &["newer", "shared", "older"])], "told once");
        assert_sound(&house).await;
        if done {
            assert!(commits > 2, "{commits}");
            return;
        }
        commits += 1;
    }
}

#[tokio::test]
async fn a_beginning_that_was_interrupted_goes_on_and_is_no_news() {
    for commits in [1, 20] {
        let house = House::new();
        let small = |store| {
            let opening = Opening { upgrade_bytes: 1, ..house.opening(newer()) };
            Universe::open_with("u", store, opening)
        };
        let flaky = Arc::new(Flaky { inner: house.store.clone(), left: AtomicI64::new(commits) });
        assert!(small(flaky).await.is_err());
        let universe = small(house.store.clone()).await.unwrap();
        assert_eq!(kernel(&house.rows().await), shipped(newer()));
        assert!(told(&universe).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_workers_one_upgrades() {
    for upgrade_bytes in [1, usize::MAX] {
        let house = House::new();
        house.open(older()).await.unwrap();
        let open = || {
            let opening = Opening { upgrade_bytes, ..house.opening(newer()) };
            tokio::spawn(Universe::open_with("u", house.store.clone(), opening))
        };
        let workers: Vec<_> = (0..4).map(|_| open()).collect();
        for worker in workers {
            worker.await.unwrap().unwrap();
        }
        let rows = house.rows().await;
        assert_eq!(kernel(&rows), shipped(newer()));
        assert!(heads(&rows).iter().all(|(id, rev, _)| *rev == 1 + u64::from(*id == INTEGER_TRAITS)));
    }
}

#[tokio::test]
async fn a_universe_from_before_versions_is_brought_up_to_date() {
    let house = House::new();
    let universe = house.open(older()).await.unwrap();
    let mut batch = batos_graph::Batch {
        marker: universe.fresh_marker().unwrap(),
        marker_bytes: vec![],
        expect: vec![],
        lock: vec![],
        put: vec![],
        delete: vec![universe.keys().version()],
        passes: Default::default(),
    };
    batch.delete.extend(older().objects.iter().map(|(id, _)| universe.keys().shipped(*id)));
    house.store.commit(batch).await.unwrap();
    let universe = house.open(newer()).await.unwrap();
    assert_eq!(eval(&universe, "3 newer + 3 shared").await, 4);
    assert_sound(&house).await;
}

fn refused(result: Result<impl Sized, UniverseError>) -> String {
    match result {
        Err(error @ UniverseError::Newer { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn an_older_batos_refuses_a_newer_universe_and_writes_nothing() {
    let house = House::new();
    let theirs = Image { batos: [99, 1, 0], ..newer() };
    house.open(theirs.clone()).await.unwrap();
    let rows = house.rows().await;
    // Their image, in formats that this batos reads: another image of an older batos does not come back over it.
    let error = refused(house.open(older()).await);
    assert!(error.contains("needs batos 99.1.0 or newer"), "{error}");
    assert_eq!(house.rows().await, rows);
    house.open(newer()).await.unwrap();

    // Formats that this batos does not read: nothing opens, checks or imports it.
    let key = KeySpace::new("u").version();
    for (format, records, found) in [(1000, 1, "1000"), (1, 200, "200")] {
        let version = Version { format, records, batos: [99, 1, 0], image: vec![1; 32], more: true };
        let bytes = batos_covenant::encode(&version, batos_covenant::Encoding::MessagePack).unwrap();
        let house = House { store: House::new().store, ..house.clone() };
        let rows: Vec<_> = rows.iter().filter(|(other, _)| *other != key).cloned().collect();
        house.store.restore(rows, None).await.unwrap();
        house.store.restore(vec![(key.clone(), Versioned { rev: 9, bytes: bytes.clone() })], None).await.unwrap();
        let rows = house.rows().await;
        let suffix = KeySpace::new("u").suffix(&key).unwrap().to_vec();
        for error in [
            refused(house.open(older()).await),
            refused(house.open(newer()).await),
            refused(check(house.store.as_ref(), "u", |_| {}).await),
            refused(admit_row(&ImageRow { key: suffix, rev: 9, value: bytes })),
        ] {
            assert!(error.contains(&format!("{found}, which is newer")) && error.contains("99.1.0"), "{error}");
        }
        assert_eq!(house.rows().await, rows);
    }
}

/// A version with a field to come.
#[derive(serde::Serialize)]
struct Version {
    format: u32,
    records: u8,
    batos: [u64; 3],
    #[serde(with = "serde_bytes")]
    image: Vec<u8>,
    more: bool,
}

#[tokio::test]
async fn an_image_of_an_older_universe_is_restored_and_brought_up_to_date() {
    let house = House::new();
    let universe = house.open(older()).await.unwrap();
    apply(&universe, "account", &[]).await;
    send(&universe, "account", "n:", vec![5.into()], Some("once")).await;
    let (_, rows, next) = universe.export(None, None).await.unwrap();
    let (mut rows, mut after) = (rows, next);
    while let Some(mark) = after {
        let (_, more, next) = universe.export(None, Some(&mark)).await.unwrap();
        rows.extend(more);
        after = next;
    }
    rows.iter().for_each(|row| admit_row(row).unwrap());
    let is_marker = |row: &ImageRow| Place::of(&KeySpace::new("u").with_suffix(&row.key)) == Some(Place::Marker);
    assert!(!rows.iter().any(is_marker), "markers of batches are of no use elsewhere");
    let elsewhere = House::new();
    restore(elsewhere.store.as_ref(), "u", &rows).await;
    let universe = elsewhere.open(newer()).await.unwrap();
    assert_eq!(kernel(&elsewhere.rows().await), shipped(newer()));
    assert_eq!(send(&universe, "account", "n", vec![], None).await, 5);
    send(&universe, "account", "n:", vec![5.into()], Some("once")).await;
    assert_sound(&elsewhere).await;
}
