//! `hack/bench store`: durable turns of a universe on redb, beside ZODB's FileStorage and bare syncs.

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use batos_bench_store::{Failure, bare_syncs, median, resident, send, written};
use batos_covenant::{ApplyCommand, GetFullStateCommand, PrototypeDefinition, SendCommand, SlotDefinition};
use batos_graph::{Key, ObjectId, Record, RedbStore, Slot, SlotKind, Store, Value, Versioned};
use batos_uvm::universe::{Universe, Work};

/// Objects of the store that is opened.
const OBJECTS: u32 = 100_000;
const ROUNDS: usize = 3;
/// Seconds of one measurement.
const SECONDS: f64 = 2.0;
/// Name, clients, whether all send to one object, least ratio to ZODB.
const LOADS: &[(&str, usize, bool, Option<f64>)] = &[
    ("1 client", 1, false, Some(1.2)),
    ("8 clients", 8, false, Some(5.0)),
    ("64 clients", 64, false, Some(8.0)),
    ("one counter, 8 clients", 8, true, Some(5.0)),
    ("one counter, 64 clients", 64, true, Some(5.0)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["turns", path, clients, shared, seconds] => turns(path, clients, shared, seconds),
        ["fill", path] => fill(path),
        ["open", path] => opening(path),
        [] => table(),
        _ => Err("run it by hack/bench store".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn id(n: u32) -> ObjectId {
    ObjectId::of_name(&format!("counter {n}"))
}

/// A universe with a prototype `counter`.
async fn universe(path: &str) -> Result<(Arc<RedbStore>, Universe), Failure> {
    let store = Arc::new(RedbStore::open(Path::new(path))?);
    let universe = Universe::open("bench", store.clone()).await?;
    Ok((store, universe))
}

async fn populate(store: &RedbStore, universe: &Universe, counters: u32) -> Result<(), Failure> {
    let method = SlotDefinition {
        name: "increment".to_owned(),
        value: None,
        method: Some("increment = ( n: n + 1. ^ n )".to_owned()),
        intent: None,
        constant: false,
    };
    let definition = PrototypeDefinition { slots: vec![method], ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    send(universe, ObjectId::of_name("counter"), Work::Apply { name: "counter".to_owned(), apply }, None).await?;
    let traits = universe.resolve("traits counter").await?;
    let slot = |name: &str, kind| Slot { name: name.to_owned(), kind };
    let slots =
        vec![slot("parent", SlotKind::Parent(Value::Ref(traits))), slot("n", SlotKind::Assignable(Value::Int(0)))];
    let bytes = Record { slots, ..Record::default() }.encode()?;
    for start in (0..counters).step_by(1000) {
        let heads = (start..counters.min(start + 1000)).map(|n| universe.keys().head(id(n)));
        let rows: Vec<(Key, Versioned)> =
            heads.map(|head| (head, Versioned { rev: 1, bytes: bytes.clone() })).collect();
        store.restore(rows, None).await?;
    }
    Ok(())
}

fn increment() -> Work {
    Work::Send { send: SendCommand { selector: "increment".to_owned(), arguments: vec![] }, made: None }
}

/// Clients that each wait for the reply before the next message. Every message has an id, as on the bus.
#[tokio::main]
async fn turns(path: &str, clients: &str, shared: &str, seconds: &str) -> Result<(), Failure> {
    let (clients, shared, seconds): (u32, bool, f64) = (clients.parse()?, shared.parse()?, seconds.parse()?);
    let (store, universe) = universe(path).await?;
    populate(&store, &universe, clients).await?;
    for n in 0..clients {
        send(&universe, id(n), increment(), None).await?;
    }
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let before = written()?;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|me| {
            let (universe, stop, sent) = (universe.clone(), stop.clone(), sent.clone());
            tokio::spawn(async move {
                let object = id(if shared { 0 } else { me });
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    send(&universe, object, increment(), Some(format!("{me}/{n}"))).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    let (took, sent) = (begun.elapsed().as_secs_f64(), sent.load(Ordering::Relaxed));
    let bytes = (written()? - before) / sent.max(1);
    store.close().await?;
    println!(r#"{{"turns": {}, "written": {bytes}, "resident": {}}}"#, sent as f64 / took, resident()?);
    Ok(())
}

/// Fills a store, says so, and waits to be killed.
#[tokio::main]
async fn fill(path: &str) -> Result<(), Failure> {
    let (store, universe) = universe(path).await?;
    populate(&store, &universe, OBJECTS).await?;
    send(&universe, id(0), increment(), None).await?;
    println!("{{}}");
    std::future::pending().await
}

/// From nothing to the first object read, and on to a clean stop.
#[tokio::main]
async fn opening(path: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    let (store, universe) = universe(path).await?;
    universe.full_state(id(7), &GetFullStateCommand::default()).await?;
    let took = begun.elapsed().as_secs_f64();
    store.close().await?;
    println!(r#"{{"seconds": {took}, "resident": {}}}"#, resident()?);
    Ok(())
}

type Figures = HashMap<String, f64>;

/// Who is measured: this program, or ZODB.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Batos,
    Zodb,
}

struct Bench {
    python: PathBuf,
    folder: tempfile::TempDir,
}

impl Bench {
    fn command(&self, side: Side) -> Result<Command, Failure> {
        let mut command = match side {
            Side::Batos => Command::new(env::current_exe()?),
            Side::Zodb => Command::new(&self.python),
        };
        if side == Side::Zodb {
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("zodb.py"));
        }
        command.stdout(Stdio::piped());
        Ok(command)
    }

    /// A folder for one measurement.
    fn file(&self, side: Side) -> Result<PathBuf, Failure> {
        let folder = self.folder.path().join(format!("{}", side as u8));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(folder.join("data"))
    }

    fn turns(&self, side: Side, clients: usize, shared: bool) -> Result<Figures, Failure> {
        let mut command = self.command(side)?;
        let (file, clients, seconds) = (self.file(side)?, clients.to_string(), SECONDS.to_string());
        match side {
            Side::Batos => {
                let shared = shared.to_string();
                command.arg("turns").arg(file).args([clients.as_str(), &shared, &seconds]);
            }
            Side::Zodb => {
                command.arg("turns").arg(file).args(["--clients", &clients, "--seconds", &seconds]);
                command.args(shared.then_some("--shared"));
            }
        }
        figures(command.spawn()?)
    }

    /// Opens what was filled and then killed.
    fn open(&self, side: Side, file: &Path) -> Result<Figures, Failure> {
        figures(self.command(side)?.arg("open").arg(file).spawn()?)
    }

    /// A filled store whose process was killed by SIGKILL.
    fn killed(&self, side: Side) -> Result<PathBuf, Failure> {
        let file = self.file(side)?;
        let mut process = self.command(side)?.arg("fill").arg(&file).spawn()?;
        let line = process.stdout.take().map(|out| BufReader::new(out).lines().next());
        process.kill()?;
        process.wait()?;
        line.flatten().ok_or("filling failed")??;
        Ok(file)
    }
}

fn figures(mut process: Child) -> Result<Figures, Failure> {
    let mut text = String::new();
    process.stdout.take().ok_or("no output")?.read_to_string(&mut text)?;
    match process.wait()?.success() {
        true => Ok(serde_json::from_str(&text)?),
        false => Err("a workload failed".into()),
    }
}

/// The median of one figure of each side.
fn both<'a>(rounds: &'a [(Figures, Figures)]) -> impl Fn(&str) -> (f64, f64) + 'a {
    move |name| {
        let of = |figures: &Figures| figures.get(name).copied().unwrap_or(f64::NAN);
        (
            median(rounds.iter().map(|(ours, _)| of(ours)).collect()),
            median(rounds.iter().map(|(_, theirs)| of(theirs)).collect()),
        )
    }
}

fn table() -> Result<(), Failure> {
    let python = env::var_os("BATOS_ZODB_PYTHON").ok_or("BATOS_ZODB_PYTHON names no Python with ZODB")?;
    let rounds = env::var("BATOS_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let folder = tempfile::tempdir_in(env::var_os("BATOS_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from))?;
    let bench = Bench { python: python.into(), folder };

    let mut syncs = Vec::new();
    let mut missed = Vec::new();
    println!("{:<32} {:>9} {:>9} {:>7}", "turns per second", "batos", "ZODB", "ratio");
    let mut rest = String::new();
    for (name, clients, shared, least) in LOADS {
        let mut measured = Vec::new();
        for _ in 0..rounds {
            let bare = bare_syncs(&bench.folder.path().join("bare"), SECONDS / 4.0)?;
            syncs.push(bare.len() as f64 / (SECONDS / 4.0));
            measured.push((bench.turns(Side::Batos, *clients, *shared)?, bench.turns(Side::Zodb, *clients, *shared)?));
        }
        let of = both(&measured);
        let (ours, theirs) = of("turns");
        let ratio = ours / theirs;
        let gate = least.map_or(String::new(), |least| format!("  (at least {least})"));
        println!("{name:<32} {ours:>9.0} {theirs:>9.0} {ratio:>7.1}{gate}");
        if least.is_some_and(|least| ratio < least) {
            missed.push(*name);
        }
        let (written, resident) = (of("written"), of("resident"));
        for (what, (ours, theirs), unit) in [("bytes written a turn", written, 1.0), ("resident MB", resident, 1e3)] {
            let (ours, theirs) = (ours / unit, theirs / unit);
            let line = format!("{:<32} {ours:>9.0} {theirs:>9.0} {:>7.1}\n", format!("{what}, {name}"), ours / theirs);
            rest.push_str(&line);
        }
    }
    println!("{:<32} {:>9.0}", "bare fdatasync per second", median(syncs));
    print!("{rest}");
    opens(&bench, rounds)?;
    match missed.is_empty() {
        true => Ok(()),
        false => Err(format!("below the least ratio: {}", missed.join(", ")).into()),
    }
}

/// Times to open 100,000 objects.
fn opens(bench: &Bench, rounds: usize) -> Result<(), Failure> {
    let (mut killed, mut clean, mut unindexed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (ours, theirs) = (bench.killed(Side::Batos)?, bench.killed(Side::Zodb)?);
        killed.push((bench.open(Side::Batos, &ours)?, bench.open(Side::Zodb, &theirs)?));
        // The one before stopped cleanly.
        let reopened = bench.open(Side::Batos, &ours)?;
        clean.push((reopened.clone(), bench.open(Side::Zodb, &theirs)?));
        fs::remove_file(theirs.with_extension("index"))?;
        unindexed.push((reopened, bench.open(Side::Zodb, &theirs)?));
    }
    for (name, rounds) in
        [("after SIGKILL", &killed), ("after a clean stop", &clean), ("the same, ZODB without index", &unindexed)]
    {
        let (ours, theirs) = both(rounds)("seconds");
        let name = format!("open ms, {name}");
        println!("{name:<32} {:>9.1} {:>9.1} {:>7.1}", ours * 1e3, theirs * 1e3, ours / theirs);
    }
    let (ours, theirs) = both(&clean)("resident");
    println!("{:<32} {:>9.0} {:>9.0} {:>7.1}", "resident MB once open", ours / 1e3, theirs / 1e3, ours / theirs);
    Ok(())
}
