//! `hack/bench collections`: large collections of a universe on redb, beside ZODB's BTrees. Both commit durably.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Instant,
};

use batos_bench_store::{Failure, median, resident, written};
use batos_covenant::{ApplyCommand, Encoding, PrototypeDefinition, Reply, SlotDefinition};
use batos_graph::{ObjectId, RedbStore, Store};
use batos_uvm::universe::{Authority, Delivery, Message, Universe, Work};

const SIZES: &[usize] = &[1_000, 100_000, 1_000_000];
/// Elements that one turn adds while a collection is built.
const BATCH: usize = 20_000;
/// Turns that change one element.
const TURNS: usize = 200;
/// Elements that one turn reads, or changes: a turn's batch has at most 8 MiB.
const READS: usize = 100_000;
const PUTS: usize = 5_000;
/// A prime just above the largest size: multiples of another number, modulo this, are keys in no order.
const PRIME: usize = 1_000_003;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["run", path, size] => run(path, size),
        [] => table(),
        _ => Err("run it by hack/bench collections".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench collections: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn eval(universe: &Universe, source: &str) -> Result<(), Failure> {
    let work = Work::Eval { source: source.to_owned(), made: None };
    deliver(universe, ObjectId::of_name("holder"), work).await
}

async fn deliver(universe: &Universe, object: ObjectId, work: Work) -> Result<(), Failure> {
    let message = Message {
        object,
        authority: Authority::Architect,
        sender: "bench".to_owned(),
        id: None,
        digest: [0; 32],
        encoding: Encoding::MessagePack,
        work,
    };
    match universe.deliver(&message).await? {
        Delivery::Replied(reply) => match batos_covenant::decode(&reply)?.0 {
            Reply::Ok(_) => Ok(()),
            Reply::Error { error } => Err(error.message.into()),
        },
        Delivery::NotUnderstood(missing) => Err(format!("nobody understands {:?}", missing.selector).into()),
    }
}

async fn open(path: &str) -> Result<(Arc<RedbStore>, Universe), Failure> {
    let store = Arc::new(RedbStore::open(Path::new(path))?);
    let universe = Universe::open("bench", store.clone()).await?;
    Ok((store, universe))
}

/// An object whose slots hold the collections.
async fn holder(universe: &Universe) -> Result<(), Failure> {
    let slot = |name: &str| SlotDefinition {
        name: name.to_owned(),
        value: Some(serde_json::Value::Null),
        method: None,
        intent: None,
        constant: false,
    };
    let slots = ["dictionary", "list", "set"].map(slot).to_vec();
    let definition = PrototypeDefinition { slots, ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    deliver(universe, ObjectId::of_name("holder"), Work::Apply { name: "holder".to_owned(), apply }).await?;
    eval(universe, "dictionary: Dictionary new. list: OrderedCollection new. set: Set new").await
}

#[tokio::main]
async fn run(path: &str, size: &str) -> Result<(), Failure> {
    let size: usize = size.parse()?;
    let (store, universe) = open(path).await?;
    holder(&universe).await?;
    let mut figures = BTreeMap::new();
    for (name, add) in [
        ("dictionary", format!("dictionary at: i * 7919 \\\\ {PRIME} put: i")),
        ("set", format!("set add: i * 7919 \\\\ {PRIME}")),
        ("list", "list add: i".to_owned()),
    ] {
        let begun = Instant::now();
        for start in (0..size).step_by(BATCH) {
            let end = size.min(start + BATCH) - 1;
            eval(&universe, &format!("{start} to: {end} do: [ :i | {add} ]. nil")).await?;
        }
        figures.insert(format!("build {name}"), size as f64 / begun.elapsed().as_secs_f64());
    }
    // An empty loop costs the same without a collection.
    let mut loops = Vec::new();
    for (name, times, body) in [
        ("loop", READS, format!("i * 7919 \\\\ {PRIME} \\\\ {size}")),
        ("at", READS, format!("list at: i * 7919 \\\\ {PRIME} \\\\ {size} + 1")),
        ("get", READS, format!("dictionary at: i \\\\ {size} * 7919 \\\\ {PRIME}")),
        ("put", PUTS, format!("dictionary at: i \\\\ {size} * 7919 \\\\ {PRIME} put: i")),
    ] {
        let source = format!("1 to: {times} do: [ :k || i | i := k * 104729. {body} ]. nil");
        let mut took = Vec::new();
        for _ in 0..4 {
            let begun = Instant::now();
            eval(&universe, &source).await?;
            took.push(begun.elapsed().as_nanos() as f64 / times as f64);
        }
        loops.push((name, median(took)));
    }
    let empty = loops.first().map_or(0.0, |(_, time)| *time);
    figures.extend(loops.into_iter().skip(1).map(|(name, time)| (name.to_owned(), time - empty)));
    // What building has left to write is none of theirs.
    store.close().await?;
    drop((store, universe));
    let (store, universe) = open(path).await?;
    for (name, body) in [
        ("change", format!("dictionary at: {{i}} \\\\ {size} * 7919 \\\\ {PRIME} put: {{i}}")),
        ("insert", "dictionary at: {i} + 2000000 put: {i}".to_owned()),
        ("append", "list add: {i}".to_owned()),
        ("shift", "list removeFirst".to_owned()),
    ] {
        let (before, begun) = (written()?, Instant::now());
        for turn in 0..TURNS {
            eval(&universe, &body.replace("{i}", &(turn * 104_729).to_string())).await?;
        }
        figures.insert(format!("{name} bytes"), (written()? - before) as f64 / TURNS as f64);
        figures.insert(format!("{name} us"), begun.elapsed().as_secs_f64() / TURNS as f64 * 1e6);
    }
    figures.insert("resident".to_owned(), resident()? as f64 / 1e3);
    store.close().await?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

type Figures = BTreeMap<String, f64>;

fn measure(mut command: Command, folder: &Path, size: usize) -> Result<Figures, Failure> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let output = command.arg("run").arg(folder.join("data")).arg(size.to_string()).stdout(Stdio::piped()).output()?;
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(format!("a workload failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Name of a figure, and what it is.
const ROWS: &[(&str, &str)] = &[
    ("build dictionary", "built: entries of a dictionary per second"),
    ("build set", "built: elements of a set per second"),
    ("build list", "built: elements of an ordered collection per second"),
    ("get", "in a turn: ns of a dictionary's at:"),
    ("put", "in a turn: ns of a dictionary's at:put:"),
    ("at", "in a turn: ns of an ordered collection's at:"),
    ("change us", "a turn, us: at:put: of a key that is there"),
    ("insert us", "a turn, us: at:put: of a new key"),
    ("append us", "a turn, us: add:"),
    ("shift us", "a turn, us: removeFirst"),
    ("change bytes", "a turn, bytes written: at:put: of a key that is there"),
    ("insert bytes", "a turn, bytes written: at:put: of a new key"),
    ("append bytes", "a turn, bytes written: add:"),
    ("shift bytes", "a turn, bytes written: removeFirst"),
    ("resident", "resident MB"),
];

fn table() -> Result<(), Failure> {
    let python = env::var_os("BATOS_ZODB_PYTHON").ok_or("BATOS_ZODB_PYTHON names no Python with ZODB")?;
    let rounds: usize = env::var("BATOS_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let folder = tempfile::tempdir_in(env::var_os("BATOS_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("btrees.py");
    for size in SIZES {
        let mut measured = Vec::new();
        for _ in 0..rounds {
            let mut zodb = Command::new(&python);
            zodb.arg(&script);
            let ours = measure(Command::new(env::current_exe()?), &folder.path().join("batos"), *size)?;
            measured.push((ours, measure(zodb, &folder.path().join("zodb"), *size)?));
        }
        println!("{:<58} {:>10} {:>10} {:>7}", format!("{size} elements"), "batos", "ZODB", "ratio");
        for (name, what) in ROWS {
            let of = |figures: &Figures| figures.get(*name).copied().unwrap_or(f64::NAN);
            let ours = median(measured.iter().map(|(ours, _)| of(ours)).collect());
            let theirs = median(measured.iter().map(|(_, theirs)| of(theirs)).collect());
            println!("{what:<58} {ours:>10.0} {theirs:>10.0} {:>7.2}", ours / theirs);
        }
        println!();
    }
    Ok(())
}
