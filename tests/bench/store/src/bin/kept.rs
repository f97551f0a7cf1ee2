//! `hack/bench store`: what 100,000 turns leave in a universe, before and after housekeeping.

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use batos_bench_store::{Failure, send};
use batos_covenant::{ApplyCommand, PrototypeDefinition, SendCommand, SlotDefinition};
use batos_graph::{Key, ObjectId, Place, RedbStore, Store};
use batos_uvm::universe::{Opening, Universe, Work};

const TURNS: u64 = 100_000;
const CLIENTS: u64 = 64;
/// Default retention and a day more, in seconds.
const LATER: u64 = 31 * 24 * 60 * 60;

#[tokio::main]
async fn main() -> ExitCode {
    match measure().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench store: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<(), Failure> {
    let folder = tempfile::tempdir_in(env::var_os("BATOS_BENCH_DIR").map_or_else(env::temp_dir, Into::into))?;
    let store = Arc::new(RedbStore::open(&folder.path().join("data"))?);
    let clock = Arc::new(AtomicU64::new(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()));
    let told = clock.clone();
    let opening = Opening { clock: Arc::new(move || told.load(Ordering::Relaxed)), ..Opening::usual() };
    let universe = Universe::open_with("bench", store.clone(), opening).await?;
    let tasks: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(turns(universe.clone(), client))).collect();
    for task in tasks {
        task.await??;
    }
    // As the relay does once NATS has them.
    for shard in 0..=u8::MAX {
        loop {
            let keys: Vec<Key> = universe.outbox(shard, None).await?.into_iter().map(|(key, _)| key).collect();
            if keys.is_empty() {
                break;
            }
            universe.trim(keys).await?;
        }
    }
    let before = bytes(store.as_ref(), &universe).await?;
    clock.fetch_add(LATER, Ordering::Relaxed);
    let begun = Instant::now();
    let mut rows = 0;
    loop {
        let swept = universe.keep_house().await?;
        rows += swept.trimmed;
        if swept.rest.is_some() {
            break;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let after = bytes(store.as_ref(), &universe).await?;
    println!("{:<32} {:>9} {:>9}", format!("bytes after {TURNS} turns"), "all kept", "swept");
    for (kind, before) in &before {
        println!("{kind:<32} {before:>9} {:>9}", after.get(kind).unwrap_or(&0));
    }
    println!("{:<32} {:>9} {:>9}", "sum", before.values().sum::<usize>(), after.values().sum::<usize>());
    println!("{:<32} {:>9.1}", format!("seconds to sweep {rows} rows"), took);
    store.close().await?;
    Ok(())
}

/// A counter of its own, and its share of the turns. Every message has an id, as on the bus.
async fn turns(universe: Universe, client: u64) -> Result<(), Failure> {
    let name = format!("counter{client}");
    let slot = |name: &str, value, method| SlotDefinition {
        name: name.to_owned(),
        value,
        method,
        intent: None,
        constant: false,
    };
    let increment = "increment = ( n: n + 1. ^ n )".to_owned();
    let slots = vec![slot("n", Some(0.into()), None), slot("increment", None, Some(increment))];
    let definition = PrototypeDefinition { slots, ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    let object = ObjectId::of_name(&name);
    send(&universe, object, Work::Apply { name, apply }, None).await?;
    for n in 0..TURNS / CLIENTS {
        let increment = SendCommand { selector: "increment".to_owned(), arguments: vec![] };
        let id = Some(format!("{client}/{n}"));
        send(&universe, object, Work::Send { send: increment, made: None }, id).await?;
    }
    Ok(())
}

/// Bytes of keys and values by what they are.
async fn bytes(store: &dyn Store, universe: &Universe) -> Result<BTreeMap<&'static str, usize>, Failure> {
    const PAGE: usize = 1024;
    let (mut start, end) = universe.keys().range();
    let mut bytes = BTreeMap::new();
    loop {
        let rows = store.scan(&start, &end, None, PAGE).await?;
        for (key, row) in &rows {
            let kind = match Place::of(key) {
                Some(Place::History(..)) => "history",
                Some(Place::Inbox(_)) => "replies",
                Some(Place::Marker) => "markers of batches",
                _ => "objects, names and the image",
            };
            *bytes.entry(kind).or_default() += key.0.len() + row.bytes.len();
        }
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => start = Key([last.0.as_slice(), &[0]].concat()),
            _ => return Ok(bytes),
        }
    }
}
