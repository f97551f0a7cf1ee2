//! `hack/bench tikv`: durable turns on TiKV by several workers, beside bare two-phase commits of the same bytes.

use std::{
    env,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use batos_bench_store::{Failure, send};
use batos_covenant::{ApplyCommand, PrototypeDefinition, SendCommand, SlotDefinition};
use batos_graph::{Batch, Committed, Expect, Key, ObjectId, Snapshot, Store, StoreError, TikvStore, Versioned};
use batos_uvm::universe::{Universe, Work};
use tikv_client::{CheckLevel, TransactionClient, TransactionOptions, transaction::HeartbeatOption};

/// Seconds of one measurement, and of the one before it that nobody counts.
const SECONDS: f64 = 3.0;
const WARM_UP: f64 = 0.5;
const CLIENTS: [usize; 3] = [1, 16, 64];
const WORKERS: [usize; 3] = [1, 2, 4];
/// Turns at a time that round trips are told from.
const FAR_TURNS: u32 = 20;
const FAR: Duration = Duration::from_millis(20);
/// Least ratio to bare commits: one client has one more round trip, for what was expected.
const ONE_CLIENT: f64 = 0.6;
const MANY_CLIENTS: f64 = 0.8;
const SHARED: f64 = 1.0;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench tikv: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A store that remembers the last batch.
struct Seen {
    store: TikvStore,
    last: Mutex<Option<Batch>>,
}

#[async_trait]
impl Store for Seen {
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.store.read(keys).await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.store.snapshot().await
    }

    async fn scan(
        &self,
        start: &Key,
        end: &Key,
        at: Option<Snapshot>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.store.scan(start, end, at, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(batch.clone());
        self.store.commit(batch).await
    }

    async fn restore(&self, rows: Vec<(Key, Versioned)>, still: Option<Expect>) -> Result<(), StoreError> {
        self.store.restore(rows, still).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

fn counter(n: usize) -> ObjectId {
    ObjectId::of_name(&format!("counter {n}"))
}

fn increment() -> Work {
    Work::Send { send: SendCommand { selector: "increment".to_owned(), arguments: Vec::new() }, made: None }
}

fn slot(name: &str, value: Option<i64>, method: Option<&str>) -> SlotDefinition {
    SlotDefinition {
        name: name.to_owned(),
        value: value.map(Into::into),
        method: method.map(str::to_owned),
        intent: None,
        constant: false,
    }
}

async fn apply(universe: &Universe, name: &str, slots: Vec<SlotDefinition>) -> Result<(), Failure> {
    let definition = PrototypeDefinition { slots, ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    send(universe, ObjectId::of_name(name), Work::Apply { name: name.to_owned(), apply }, None).await
}

/// What was counted: how many a second, and how long the middle one and all but one in a hundred took.
struct Figures {
    rate: f64,
    p50: Duration,
    p99: Duration,
}

impl Figures {
    fn of(mut times: Vec<Duration>, seconds: f64) -> Self {
        times.sort();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
        Self { rate: times.len() as f64 / seconds, p50: at(0.5), p99: at(0.99) }
    }
}

/// Clients that each wait for the end of what they began.
async fn load<F>(clients: usize, seconds: f64, task: impl Fn(usize, u64) -> F) -> Result<Figures, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let task = &task;
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let one = |client: usize| async move {
        let (mut times, mut n) = (Vec::new(), 0);
        while Instant::now() < end {
            let begun = Instant::now();
            tokio::spawn(task(client, n)).await??;
            times.push(begun.elapsed());
            n += 1;
        }
        Ok::<_, Failure>(times)
    };
    let mut running = Vec::new();
    for client in 0..clients {
        running.push(Box::pin(one(client)));
    }
    let mut times = Vec::new();
    for done in join(running).await {
        times.extend(done?);
    }
    Ok(Figures::of(times, seconds))
}

/// All of them at once, in their order.
async fn join<F: Future + Unpin>(mut running: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut waits = false;
        for (future, done) in running.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            match std::pin::Pin::new(future).poll(context) {
                std::task::Poll::Ready(output) => *done = Some(output),
                std::task::Poll::Pending => waits = true,
            }
        }
        if waits { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn run() -> Result<bool, Failure> {
    let url = env::var("BATOS_TIKV").map_err(|_| "run it by hack/bench tikv")?;
    let control = env::var("BATOS_TIKV_CONTROL")?;
    let seen = Arc::new(Seen { store: TikvStore::connect(&url).await?, last: Mutex::default() });
    let name = format!("bench{}", std::process::id());
    let first = Universe::open(&name, seen.clone()).await?;
    let method = "increment = ( n: n + 1. ^n )";
    for n in 0..CLIENTS[2] {
        apply(&first, &format!("counter {n}"), vec![slot("n", Some(0), None), slot("increment", None, Some(method))])
            .await?;
    }
    send(&first, counter(0), increment(), Some("shape".to_owned())).await?;
    let shape = seen.last.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or("no turn was committed")?;
    let bytes = shape.put.iter().map(|put| put.key.0.len() + put.bytes.len()).sum::<usize>();
    println!("a turn expects {} rows and writes {} of {bytes} bytes\n", shape.expect.len(), shape.put.len() + 1);

    let mut workers = Vec::new();
    for _ in 0..WORKERS[2] {
        workers.push(Universe::open(&name, Arc::new(TikvStore::connect(&url).await?)).await?);
    }
    let bare = Arc::new(TransactionClient::new(vec![url.trim_start_matches("tikv://").to_owned()]).await?);
    let shape = Arc::new(shape);
    let commits = |clients: usize, seconds: f64| {
        let (bare, shape) = (bare.clone(), shape.clone());
        async move {
            load(clients, seconds, |client, n| commit(bare.clone(), shape.clone(), format!("{clients} {client} {n}"))).await
        }
    };
    let turns = |workers: Vec<Universe>, clients: usize, shared: bool, seconds: f64| async move {
        let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        load(clients, seconds, |client, n| {
            let object = counter(if shared { 0 } else { client });
            // As on the bus, where a message goes to the worker that has its object's shard.
            let worker = workers.get(usize::from(object.shard()) % workers.len()).cloned();
            let id = format!("{run} {clients} {shared} {} {client} {n} {seconds}", workers.len());
            async move { send(&worker.ok_or("no worker")?, object, increment(), Some(id)).await }
        })
        .await
    };

    let mut holds = true;
    println!("| clients | workers | per second | p50 ms | p99 ms | of bare | least |");
    println!("|---|---|---|---|---|---|---|");
    for clients in CLIENTS {
        commits(clients, WARM_UP).await?;
        let peer = commits(clients, SECONDS).await?;
        row(&format!("{clients}, bare commits"), 0, &peer, None, None);
        for (what, shared) in [("a counter each", false), ("one counter", true)] {
            for count in WORKERS {
                let some: Vec<Universe> = workers.iter().take(count).cloned().collect();
                turns(some.clone(), clients, shared, WARM_UP).await?;
                let figures = turns(some, clients, shared, SECONDS).await?;
                let least = match (clients, count, shared) {
                    (1, 1, false) => Some(ONE_CLIENT),
                    (_, 1, false) => Some(MANY_CLIENTS),
                    (64, 1, true) => Some(SHARED),
                    _ => None,
                };
                let ratio = figures.rate / peer.rate;
                holds &= least.is_none_or(|least| ratio >= least);
                row(&format!("{clients}, {what}"), count, &figures, Some(ratio), least);
            }
        }
    }

    let worker = workers.first().ok_or("no worker")?;
    let http = reqwest::Client::new();
    let delay = |ms: u128| http.post(format!("http://{control}/delay?ms={ms}")).send();
    delay(FAR.as_millis()).await?.error_for_status()?;
    let begun = Instant::now();
    for n in 0..FAR_TURNS {
        commit(bare.clone(), shape.clone(), format!("far {n}")).await?;
    }
    let bare_trips = begun.elapsed().as_secs_f64() / f64::from(FAR_TURNS) / FAR.as_secs_f64();
    let begun = Instant::now();
    for n in 0..FAR_TURNS {
        send(worker, counter(0), increment(), Some(format!("far {n}"))).await?;
    }
    let trips = begun.elapsed().as_secs_f64() / f64::from(FAR_TURNS) / FAR.as_secs_f64();
    delay(0).await?.error_for_status()?;
    println!("\nround trips, one after the other: a turn {trips:.1}, a bare commit {bare_trips:.1}");

    let read = || Work::Send { send: SendCommand { selector: "n".to_owned(), arguments: Vec::new() }, made: None };
    let warm = load(1, SECONDS, |_, _| {
        let worker = worker.clone();
        async move { send(&worker, counter(0), read(), None).await }
    })
    .await?;
    let cold = Universe::open(&name, Arc::new(TikvStore::connect(&url).await?)).await?;
    let mut times = Vec::new();
    for n in 1..CLIENTS[2] {
        let begun = Instant::now();
        send(&cold, counter(n), read(), None).await?;
        times.push(begun.elapsed());
    }
    let cold = Figures::of(times, 1.0);
    let edit = load(1, SECONDS, |_, n| {
        let (worker, source) = (worker.clone(), format!("increment = ( n: n + 1. ^n + {n} - {n} )"));
        let traits = ObjectId::of_name("traits counter 1");
        let work = Work::CreateMethod { name: "increment".to_owned(), source };
        async move { send(&worker, traits, work, None).await }
    })
    .await?;
    for (what, figures) in [("a read", &warm), ("a first read", &cold), ("an edit of a method", &edit)] {
        println!("{what}: p50 {:.2} ms, p99 {:.2} ms", ms(figures.p50), ms(figures.p99));
    }
    if !holds {
        eprintln!("\na ratio is below what it must be");
    }
    Ok(holds)
}

fn row(what: &str, workers: usize, figures: &Figures, ratio: Option<f64>, least: Option<f64>) {
    let number = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let workers = if workers == 0 { String::new() } else { workers.to_string() };
    let Figures { rate, p50, p99 } = figures;
    println!(
        "| {what} | {workers} | {rate:.0} | {:.2} | {:.2} | {} | {} |",
        ms(*p50),
        ms(*p99),
        number(ratio),
        number(least)
    );
}

/// A plain optimistic transaction of as many rows of the same bytes, under keys of its own.
async fn commit(client: Arc<TransactionClient>, shape: Arc<Batch>, name: String) -> Result<(), Failure> {
    let options = TransactionOptions::new_optimistic()
        .drop_check(CheckLevel::None)
        .heartbeat_option(HeartbeatOption::NoHeartbeat);
    let mut transaction = client.begin_with_options(options).await?;
    let marker = (&shape.marker, &shape.marker_bytes);
    for (key, bytes) in shape.put.iter().map(|put| (&put.key, &put.bytes)).chain([marker]) {
        let key = [b"batos/bare ", name.as_bytes(), &key.0].concat();
        transaction.put(key, bytes.clone()).await?;
    }
    transaction.commit().await?;
    Ok(())
}
