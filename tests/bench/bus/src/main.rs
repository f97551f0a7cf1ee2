//! `hack/bench bus`: durable sends to a universe on redb through a real nats-server, beside a bare request and reply
//! through the same server and bare syncs of the same disk.

mod processes;

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::HeaderMap;
use batos_bench_store::{Failure, bare_syncs, median};
use batos_covenant::{
    ApplyCommand, Command, Encoding, MESSAGE_ID_HEADER, PrototypeDefinition, Reply, SENDER_HEADER, SendCommand,
    SlotDefinition, decode, encode,
};
use serde_json::json;

use processes::Processes;

const ROUNDS: usize = 3;
/// Seconds of one measurement, after a quarter of that to warm up.
const SECONDS: f64 = 2.0;
const PREFIX: &str = "batos.v1.bench";
const ECHO: &str = "echo";

/// What the clients of a load do.
#[derive(Clone, Copy, PartialEq)]
enum What {
    /// Each sends `increment` to a counter of its own.
    Own,
    /// All send it to one.
    Shared,
    /// Each asks its counter for a slot: no commit, but a check against the store.
    Read,
}

/// Name, clients, what they do, most time a send may take at the median: times a bare request and a bare sync.
const LOADS: &[(&str, usize, What, f64)] = &[
    ("1 client", 1, What::Own, 4.0),
    ("16 clients", 16, What::Own, 8.0),
    ("128 clients", 128, What::Own, 12.0),
    ("one counter, 16 clients", 16, What::Shared, 20.0),
    ("reads, 1 client", 1, What::Read, 2.5),
    ("reads, 128 clients", 128, What::Read, 8.0),
];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["echo", url] => echo(url).await,
        names => table(names).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench bus: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers requests with what they carry: what the bus alone costs.
async fn echo(url: &str) -> Result<(), Failure> {
    let nats = async_nats::connect(url).await?;
    let mut requests = nats.subscribe(ECHO).await?;
    while let Some(request) = futures::StreamExt::next(&mut requests).await {
        if let Some(reply) = request.reply {
            nats.publish(reply, request.payload).await?;
        }
    }
    Ok(())
}

/// Requests of one kind, prepared.
#[derive(Clone)]
struct Requests {
    nats: async_nats::Client,
    payload: Vec<u8>,
    /// Requests carry message ids that begin so.
    ids: Option<String>,
}

impl Requests {
    async fn one(&self, subject: &str, n: usize) -> Result<Vec<u8>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(SENDER_HEADER, "bench");
        if let Some(ids) = &self.ids {
            headers.insert(MESSAGE_ID_HEADER, format!("{ids}/{subject}/{n}").as_str());
        }
        let reply = self.nats.request_with_headers(subject.to_owned(), headers, self.payload.clone().into()).await?;
        Ok(reply.payload.to_vec())
    }
}

struct Figures {
    /// Milliseconds.
    p50: f64,
    p99: f64,
    per_second: f64,
    /// Microseconds of processor time that a request costs the worker, or what stands for it.
    cpu: f64,
}

fn at(times: &[Duration], share: f64) -> f64 {
    let index = (times.len() as f64 * share) as usize;
    times.get(index.min(times.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// Clients that each wait for the reply before the next request; `subject` is of a client.
async fn load(
    requests: &Requests,
    clients: usize,
    check: bool,
    server: u32,
    subject: impl Fn(usize) -> String,
) -> Result<Figures, Failure> {
    let cpu = cpu_seconds(server)?;
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let warm = begun + Duration::from_secs_f64(SECONDS / 4.0);
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (requests, stop, subject) = (requests.clone(), stop.clone(), subject(client));
            tokio::spawn(async move {
                let (mut times, mut all) = (Vec::new(), 0);
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let one = Instant::now();
                    let reply = requests.one(&subject, client << 32 | n).await?;
                    all += 1;
                    if one >= warm {
                        times.push(one.elapsed());
                    }
                    if check && let Reply::Error { error } = decode(&reply)?.0 {
                        return Err(error.to_string().into());
                    }
                }
                Ok::<_, Failure>((times, all))
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(SECONDS * 1.25)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut times, mut requests) = (Vec::new(), 0);
    for task in tasks {
        let (of_client, all) = task.await??;
        times.extend(of_client);
        requests += all;
    }
    let took = warm.elapsed().as_secs_f64();
    times.sort();
    let cpu = (cpu_seconds(server)? - cpu) * 1e6 / f64::from(requests);
    Ok(Figures { p50: at(&times, 0.5), p99: at(&times, 0.99), per_second: times.len() as f64 / took, cpu })
}

/// Processor time that a process has used.
fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    /// Linux counts in these, on every architecture that matters here.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or("no stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.collect::<Result<Vec<_>, _>>()?.iter().sum::<f64>() / TICKS)
}

/// A counter for each client.
async fn populate(nats: &async_nats::Client, counters: usize) -> Result<(), Failure> {
    let slot = |name: &str, value, method: Option<&str>| SlotDefinition {
        name: name.to_owned(),
        value,
        method: method.map(str::to_owned),
        intent: None,
        constant: false,
    };
    let slots = vec![slot("n", Some(json!(0)), None), slot("increment", None, Some("increment = ( n: n + 1. ^n )"))];
    let definition = PrototypeDefinition { slots, ..PrototypeDefinition::default() };
    let apply = Command::Apply(ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false });
    let payload = encode(&apply, Encoding::MessagePack)?;
    for counter in 0..counters {
        let subject = format!("{PREFIX}.adm.counter-{counter}.apply");
        let reply = nats.request(subject, payload.clone().into()).await?;
        if let Reply::Error { error } = decode(&reply.payload)?.0 {
            return Err(error.to_string().into());
        }
    }
    Ok(())
}

fn send(selector: &str) -> Result<Vec<u8>, Failure> {
    let command = Command::Send(SendCommand { selector: selector.to_owned(), arguments: vec![] });
    Ok(encode(&command, Encoding::MessagePack)?)
}

async fn table(names: &[&str]) -> Result<(), Failure> {
    let rounds = env::var("BATOS_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let folder = tempfile::tempdir_in(env::var_os("BATOS_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from))?;
    let processes = Processes::start(folder.path()).await?;
    let nats = async_nats::connect(&processes.url).await?;
    processes.wait_ready(&nats, &format!("{PREFIX}.cmd._.list")).await?;
    populate(&nats, LOADS.iter().map(|load| load.1).max().unwrap_or(0)).await?;

    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>7}   {:>9} {:>9} {:>9} {:>7}   {:>6} {:>6}",
        "durable sends, ms", "p50", "p99", "per s", "CPU us", "NATS p50", "p99", "per s", "CPU us", "ratio", "p99"
    );
    let mut syncs: Vec<Duration> = Vec::new();
    let mut missed = Vec::new();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part));
    for (name, clients, what, most) in LOADS.iter().filter(|load| wanted(load.0)) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            syncs.extend(bare_syncs(&folder.path().join("bare"), SECONDS / 4.0)?);
            let increment = *what != What::Read;
            let payload = send(if increment { "increment" } else { "n" })?;
            let ids = increment.then(|| format!("{name}/{round}"));
            let requests = Requests { nats: nats.clone(), payload, ids };
            theirs.push(load(&requests, *clients, false, processes.echo()?, |_| ECHO.to_owned()).await?);
            let counter = |client| if *what == What::Shared { 0 } else { client };
            let subject = |client| format!("{PREFIX}.cmd.counter-{}.send", counter(client));
            ours.push(load(&requests, *clients, true, processes.worker()?, subject).await?);
        }
        syncs.sort();
        let of = |side: &[Figures], figure: fn(&Figures) -> f64| median(side.iter().map(figure).collect());
        let [p50, p99, rate] = [|f: &Figures| f.p50, |f: &Figures| f.p99, |f: &Figures| f.per_second];
        // What a send cannot do without: the bus's round trip, and a sync if it writes.
        let sync = |share| if *what == What::Read { 0.0 } else { at(&syncs, share) };
        let ratio = of(&ours, p50) / (of(&theirs, p50) + sync(0.5));
        let ratio99 = of(&ours, p99) / (of(&theirs, p99) + sync(0.99));
        println!(
            "{name:<24} {:>9.2} {:>9.2} {:>9.0} {:>7.0}   {:>9.2} {:>9.2} {:>9.0} {:>7.0}   {ratio:>6.1} {ratio99:>6.1}  (at most {most})",
            of(&ours, p50),
            of(&ours, p99),
            of(&ours, rate),
            of(&ours, |f| f.cpu),
            of(&theirs, p50),
            of(&theirs, p99),
            of(&theirs, rate),
            of(&theirs, |f| f.cpu),
        );
        if ratio > *most {
            missed.push(*name);
        }
    }
    println!("{:<24} {:>9.2} {:>9.2}", "bare fdatasync, ms", at(&syncs, 0.5), at(&syncs, 0.99));
    println!("ratio: a send beside a bare request and reply and, if it writes, a bare sync");
    processes.stop().await?;
    match missed.is_empty() {
        true => Ok(()),
        false => Err(format!("above the greatest ratio: {}", missed.join(", ")).into()),
    }
}
