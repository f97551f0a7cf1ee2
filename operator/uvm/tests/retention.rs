//! What was is kept as long as the universe's retention says, and methods for good.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use batos_covenant::{SlotChange, Wire};
use batos_graph::{Batch, Key, ObjectId, Place, Slot, SlotKind, Value};
use batos_uvm::universe::{Age, Image, Retention, Universe, UniverseError, check};
use common::house::{House, apply, change, create_method, restore, send, undo};
use proptest::prelude::*;

const DAY: u64 = 24 * 60 * 60;

fn keeping(history: u64, replies: u64) -> Retention {
    let age = |seconds| Age::For(Duration::from_secs(seconds));
    Retention { history: age(history), replies: age(replies), unreached: Age::Forever }
}

fn forever() -> Retention {
    Retention { history: Age::Forever, replies: Age::Forever, unreached: Age::Forever }
}

/// Takes a pass to its end; answers how many rows went.
async fn sweep(universe: &Universe) -> usize {
    let mut trimmed = 0;
    loop {
        let swept = universe.keep_house().await.unwrap();
        trimmed += swept.trimmed;
        if swept.rest.is_some() {
            return trimmed;
        }
    }
}

async fn count(house: &House, kind: impl Fn(Place) -> bool) -> usize {
    house.rows().await.iter().filter(|(key, _)| Place::of(key).is_some_and(&kind)).count()
}

/// All changes of an object, and the revision from which data is known.
async fn history(universe: &Universe, object: &str, slot: Option<&str>) -> (Vec<SlotChange>, Option<u64>) {
    let object = universe.resolve(object).await.unwrap();
    let (mut changes, mut data_from, mut before) = (Vec::new(), None, None);
    loop {
        let page = universe.history(object, slot, before).await.unwrap();
        changes.extend(page.changes);
        data_from = data_from.or(page.data_from);
        assert!(page.next.is_none_or(|next| before.is_none_or(|before| next < before)), "pages go on");
        match page.next {
            Some(next) => before = Some(next),
            None => return (changes, data_from),
        }
    }
}

fn revs(changes: &[SlotChange]) -> Vec<u64> {
    changes.iter().map(|change| change.rev).collect()
}

async fn problems(house: &House) -> Vec<String> {
    check(house.store.as_ref(), "u", |_| {}).await.unwrap().problems
}

async fn assert_sound(house: &House) {
    let problems = problems(house).await;
    assert!(problems.is_empty(), "{problems:?}");
}

#[tokio::test]
async fn data_goes_when_its_time_has_passed_and_history_says_how_far_it_goes() {
    let house = House::new();
    let universe = house.keeping(keeping(30 * DAY, DAY)).await;
    apply(&universe, "account", &[]).await;
    for day in 1..=100 {
        house.pass(DAY);
        send(&universe, "account", "n:", vec![day.into()], None).await;
    }
    let (all, data_from) = history(&universe, "account", None).await;
    assert_eq!(revs(&all).len(), 102, "parent and n of the first revision, and 100 changes");
    assert_eq!((data_from, all[0].at), (None, Some(1_800_000_000 + 100 * DAY)));

    assert!(sweep(&universe).await > 0);
    let (kept, data_from) = history(&universe, "account", None).await;
    assert_eq!((kept.as_slice(), data_from), (&all[..31], Some(70)), "what was overwritten in the last 30 days");
    assert_eq!(send(&universe, "account", "n", vec![], None).await, 100);
    assert_sound(&house).await;
    assert_eq!(history(&universe, "traits account", None).await.1, None, "nothing of it was overwritten");

    // What is kept can be put back, what is not cannot.
    for n in [99, 100] {
        undo(&universe, "account", "n").await.unwrap();
        assert_eq!(send(&universe, "account", "n", vec![], None).await, n);
    }
    house.pass(31 * DAY);
    sweep(&universe).await;
    assert_eq!(history(&universe, "account", None).await, (vec![], Some(103)));
    let error = undo(&universe, "account", "n").await.unwrap_err();
    assert!(error.to_string().contains("no longer kept"), "{error}");
    assert_sound(&house).await;
}

#[tokio::test]
async fn overwritten_methods_stay_for_good_without_the_data_beside_them() {
    let house = House::new();
    let universe = house.keeping(keeping(DAY, DAY)).await;
    apply(&universe, "account", &[]).await;
    let set = "go = ( self setSlot: #act: value: [ :x | x + N ] )";
    for n in 1..=300 {
        create_method(&universe, "account", "go", &set.replace('N', &n.to_string())).await;
        if n % 100 == 0 {
            send(&universe, "account", "go", vec![], None).await;
        }
        for _ in 0..(n % 3) {
            send(&universe, "account", "n:", vec!["a secret".into()], None).await;
        }
    }
    let of_methods = |changes: Vec<SlotChange>| -> Vec<SlotChange> {
        changes.into_iter().filter(|change| change.slot != "n" && change.slot != "parent").collect()
    };
    let (go, act) =
        (history(&universe, "traits account", Some("go")).await.0, history(&universe, "account", None).await.0);
    assert_eq!(go.len(), 300);
    house.pass(2 * DAY);
    assert!(sweep(&universe).await > 500);
    assert_eq!(history(&universe, "traits account", Some("go")).await.0, go);
    let (changes, data_from) = history(&universe, "account", None).await;
    assert_eq!(changes, of_methods(act));
    assert_eq!(changes.len(), 3);
    assert!(data_from.is_some());
    let account = ObjectId::of_name("account");
    let rows = house.rows().await;
    let past = rows.iter().filter(|(key, _)| matches!(Place::of(key), Some(Place::History(id, _)) if id == account));
    let secret = b"a secret";
    let told = past.filter(|(_, row)| row.bytes.windows(secret.len()).any(|window| window == secret)).count();
    assert_eq!(told, 0, "what stays has no data");
    // Methods can be put back however old they are.
    for n in [299, 300] {
        let value = undo(&universe, "traits account", "go").await.unwrap();
        assert_eq!(value["became"], set.replace('N', &n.to_string()));
        house.pass(2 * DAY);
        sweep(&universe).await;
    }
    let act = undo(&universe, "account", "act:").await.unwrap();
    assert!(act["became"].as_str().unwrap().contains("200"), "{act}");
    assert_sound(&house).await;
}

#[tokio::test]
async fn a_repeat_is_answered_within_the_window_and_carried_out_again_after_it() {
    let house = House::new();
    let universe = house.keeping(keeping(DAY, 10 * 60)).await;
    apply(&universe, "account", &[]).await;
    create_method(&universe, "account", "more", "more = ( n: n + 1. n )").await;
    let more = || send(&universe, "account", "more", vec![], Some("once"));
    assert_eq!(more().await, 1);
    house.pass(9 * 60);
    sweep(&universe).await;
    assert_eq!(more().await, 1);
    house.pass(2 * 60);
    assert_eq!(more().await, 1, "until housekeeping comes round");
    sweep(&universe).await;
    assert_eq!(more().await, 2);
    assert_eq!(more().await, 2);
    assert_eq!(count(&house, |place| matches!(place, Place::Inbox(_))).await, 1);
}

#[tokio::test]
async fn an_id_that_tells_its_time_is_refused_after_the_window() {
    let house = House::new();
    let universe = house.keeping(keeping(DAY, 10 * 60)).await;
    apply(&universe, "account", &[]).await;
    let id =
        format!("{:08x}-{:04x}-7000-8000-000000000000", 1_800_000_000_000_u64 >> 16, 1_800_000_000_000_u64 & 0xffff);
    assert_eq!(send(&universe, "account", "n", vec![], Some(&id)).await, 0);
    house.pass(20 * 60);
    assert_eq!(send(&universe, "account", "n", vec![], Some(&id)).await, 0, "as long as the reply is there");
    sweep(&universe).await;
    let work = batos_uvm::universe::Work::Eval { source: "1".to_owned(), made: None };
    let object = ObjectId::of_name("account");
    let error = common::house::deliver(&universe, object, work, Some(&id)).await.unwrap_err();
    assert!(matches!(error, UniverseError::IdExpired(_)), "{error}");
    assert_eq!(error.kind(), batos_covenant::ErrorKind::Stale);
}

#[tokio::test]
async fn forever_is_forever() {
    let house = House::new();
    let universe = house.keeping(forever()).await;
    apply(&universe, "account", &[]).await;
    for n in 0..10 {
        send(&universe, "account", "n:", vec![n.into()], Some(&n.to_string())).await;
    }
    house.pass(10_000 * DAY);
    sweep(&universe).await;
    assert_eq!(history(&universe, "account", Some("n")).await.0.len(), 10);
    assert_eq!(count(&house, |place| matches!(place, Place::Inbox(_))).await, 10);
    assert_eq!(count(&house, |place| place == Place::Marker).await, 1, "that of the sweep");
}

#[tokio::test]
async fn rows_from_before_times_were_kept_count_from_the_first_sweep() {
    let house = House::new();
    let universe = house.keeping(keeping(DAY, DAY)).await;
    apply(&universe, "account", &[]).await;
    send(&universe, "account", "n:", vec![1.into()], Some("a")).await;
    let keys = universe.keys();
    // As they were written once: a record alone, a marker without a time, an empty marker.
    let id = ObjectId::of_name("account");
    let head = house.store.read(&[keys.head(id)]).await.unwrap().remove(0).unwrap();
    let inbox = |key: &Key| matches!(Place::of(key), Some(Place::Inbox(_)));
    let (inbox, _) = house.rows().await.into_iter().find(|(key, _)| inbox(key)).unwrap();
    #[derive(serde::Serialize)]
    struct Stored {
        digest: [u8; 32],
        reply: Vec<u8>,
    }
    let reply = batos_covenant::encode(
        &batos_covenant::Reply::Ok(batos_covenant::OkReply {
            value: Wire::from("then"),
            rev: 2,
            made: None,
            transcript: None,
        }),
        batos_covenant::Encoding::Json,
    );
    let stored = Stored { digest: [0; 32], reply: reply.unwrap() };
    let stored = batos_covenant::encode(&stored, batos_covenant::Encoding::MessagePack).unwrap();
    let rows = [(keys.history(id, 1), head.bytes), (inbox, stored), (keys.marker([7; 16]), vec![])];
    let row = |(key, bytes): (Key, Vec<u8>)| (key, batos_graph::Versioned { rev: 1, bytes });
    house.store.restore(rows.into_iter().map(row).collect(), None).await.unwrap();

    house.pass(10 * DAY);
    sweep(&universe).await;
    assert_eq!(history(&universe, "account", None).await.1, None);
    assert_eq!(send(&universe, "account", "n", vec![], Some("a")).await, "then");
    house.pass(2 * DAY);
    sweep(&universe).await;
    assert_eq!(history(&universe, "account", None).await.1, Some(2));
    assert_eq!(count(&house, |place| matches!(place, Place::Inbox(_))).await, 0);
    let markers = count(&house, |place| place == Place::Marker).await;
    assert_eq!(markers, 1, "that of the last sweep");
}

#[tokio::test]
async fn check_still_finds_what_is_missing() {
    let house = House::new();
    let universe = house.keeping(keeping(DAY, DAY)).await;
    apply(&universe, "account", &[]).await;
    for n in 0..6 {
        house.pass(DAY / 2);
        send(&universe, "account", "n:", vec![n.into()], None).await;
    }
    sweep(&universe).await;
    assert_sound(&house).await;
    let id = ObjectId::of_name("account");
    let keys = universe.keys();
    let kept: Vec<u64> = house
        .rows()
        .await
        .iter()
        .filter_map(|(key, _)| match Place::of(key) {
            Some(Place::History(of, rev)) if of == id => Some(rev),
            _ => None,
        })
        .collect();
    let batch = Batch {
        marker: universe.fresh_marker().unwrap(),
        marker_bytes: vec![],
        expect: vec![],
        lock: vec![],
        put: vec![],
        delete: vec![keys.history(id, kept[1])],
        passes: Default::default(),
    };
    house.store.commit(batch).await.unwrap();
    let problems = problems(&house).await;
    assert!(problems.len() == 1 && problems[0].contains("gaps"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_share_a_pass_while_turns_go_on() {
    let house = House::new();
    let universe = house.keeping(keeping(DAY, DAY)).await;
    for object in 0..8 {
        apply(&universe, &format!("o{object}"), &[]).await;
        create_method(&universe, &format!("o{object}"), "more", "more = ( n: n + 1. n )").await;
        for n in 0..200 {
            send(&universe, &format!("o{object}"), "more", vec![], Some(&n.to_string())).await;
        }
    }
    house.pass(2 * DAY);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let worker = house.keeping(keeping(DAY, DAY)).await;
        tasks.push(tokio::spawn(async move {
            let mut trimmed = 0;
            for _ in 0..50 {
                trimmed += worker.keep_house().await.unwrap().trimmed;
            }
            trimmed
        }));
    }
    let mut turns = Vec::new();
    for object in 0..8 {
        let universe = universe.clone();
        turns.push(tokio::spawn(async move {
            for _ in 0..50 {
                send(&universe, &format!("o{object}"), "more", vec![], None).await;
            }
        }));
    }
    for turn in turns {
        turn.await.unwrap();
    }
    let mut trimmed = 0;
    for task in tasks {
        trimmed += task.await.unwrap();
    }
    assert!(trimmed >= 8 * 2 * 200, "{trimmed}");
    for object in 0..8 {
        assert_eq!(send(&universe, &format!("o{object}"), "n", vec![], None).await, 250);
    }
    assert_eq!(count(&house, |place| matches!(place, Place::Inbox(_))).await, 0);
    assert_sound(&house).await;
}

#[derive(Debug, Clone)]
enum Act {
    Set(u8),
    /// Gives the object a method of its own, of few, or another content to it.
    Method(u8, u8),
    /// The name of a method becomes data.
    Data(u8),
    Remove(u8),
    Undo(u8),
    Pass(u64),
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => any::<u8>().prop_map(Act::Set),
        3 => (0..3_u8, any::<u8>()).prop_map(|(name, n)| Act::Method(name, n)),
        1 => (0..3_u8).prop_map(Act::Data),
        1 => (0..3_u8).prop_map(Act::Remove),
        1 => (0..3_u8).prop_map(Act::Undo),
        3 => (0..2 * DAY).prop_map(Act::Pass),
        2 => Just(Act::Sweep),
    ]
}

/// A change of a method as far as it is one: contents that are no method are nothing.
type Told = (u64, String, Option<String>, Option<String>);

fn methods(changes: Vec<SlotChange>) -> BTreeSet<Told> {
    let source = |content: &Option<Wire>| {
        content.as_ref().and_then(Wire::as_str).filter(|text| text.contains('(')).map(str::to_owned)
    };
    let told = |change: SlotChange| (change.rev, change.slot.clone(), source(&change.was), source(&change.became));
    changes.into_iter().map(told).filter(|(.., was, became)| was.is_some() || became.is_some()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Beside a universe that keeps all.
    #[test]
    fn trimming_changes_neither_objects_nor_the_history_of_methods(acts in prop::collection::vec(act(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let (house, all) = (House::new(), House::new());
            let trimming = house.keeping(keeping(DAY, DAY)).await;
            let keeping = all.keeping(forever()).await;
            let both = [&trimming, &keeping];
            for universe in both {
                apply(universe, "o", &[]).await;
            }
            for (step, act) in acts.into_iter().enumerate() {
                let put = |name: String, kind: Option<SlotKind>| async move {
                    for universe in both {
                        change(universe, ObjectId::of_name("o"), |record| {
                            record.slots.retain(|slot| slot.name != name);
                            record.slots.extend(kind.clone().map(|kind| Slot { name: name.clone(), kind }));
                        })
                        .await;
                    }
                };
                let step = step as i64;
                match act {
                    Act::Set(n) => put("n".to_owned(), Some(SlotKind::Assignable(Value::Int(n.into())))).await,
                    Act::Method(name, n) => {
                        let method = SlotKind::Method(format!("m{name} = ( {n} )"));
                        put(format!("m{name}"), Some(method)).await;
                    }
                    Act::Data(name) => put(format!("m{name}"), Some(SlotKind::Constant(Value::Int(step)))).await,
                    Act::Remove(name) => put(format!("m{name}"), None).await,
                    Act::Undo(name) => {
                        let slot = format!("m{name}");
                        // Where it can be undone, it comes out the same; where data is gone, it cannot.
                        if let Ok(value) = undo(&trimming, "o", &slot).await {
                            assert_eq!(value, undo(&keeping, "o", &slot).await.unwrap());
                        }
                    }
                    Act::Pass(seconds) => {
                        house.pass(seconds);
                        all.pass(seconds);
                    }
                    Act::Sweep => drop(sweep(&trimming).await),
                }
            }
            let mut found = Vec::new();
            for universe in both {
                let object = universe.resolve("o").await.unwrap();
                let state = universe.full_state(object, &batos_covenant::GetFullStateCommand::default()).await.unwrap();
                found.push((state, methods(history(universe, "o", None).await.0)));
            }
            assert_eq!(found[0], found[1]);
            // Data that is told is told rightly.
            let (told, full) = (history(&trimming, "o", None).await.0, history(&keeping, "o", None).await.0);
            for change in told.iter().filter(|change| change.slot == "n") {
                assert!(full.contains(change), "{change:?}");
            }
            assert_sound(&house).await;
        });
    }
}

#[tokio::test]
async fn an_image_of_a_trimmed_universe_is_restored() {
    let house = House::new();
    let universe = house.keeping(keeping(DAY, DAY)).await;
    apply(&universe, "account", &[]).await;
    create_method(&universe, "account", "go", "go = ( 1 )").await;
    create_method(&universe, "account", "go", "go = ( 2 )").await;
    send(&universe, "account", "n:", vec![1.into()], Some("a")).await;
    house.pass(2 * DAY);
    sweep(&universe).await;
    let (_, rows, next) = universe.export(None, None).await.unwrap();
    assert_eq!(next, None);
    let elsewhere = House::new();
    restore(elsewhere.store.as_ref(), "u", &rows).await;
    let restored = elsewhere.open(Image::shipped().unwrap()).await.unwrap();
    for object in ["account", "traits account"] {
        assert_eq!(history(&restored, object, None).await, history(&universe, object, None).await);
    }
    assert_sound(&elsewhere).await;
}
