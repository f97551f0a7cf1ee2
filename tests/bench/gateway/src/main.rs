//! `hack/bench gateway`: chats through `batos weaver serve` to a played vLLM, beside the same through a bare proxy, which
//! passes bytes on and reads none. Played engines answer at once, so that what is left is the way there.

mod client;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use client::Client;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ROUNDS: usize = 3;
/// Seconds of one measurement, after a quarter of that to warm up.
const SECONDS: f64 = 2.0;
/// Milliseconds that the gateway may add at the median where nobody else asks.
const MOST_ADDED: f64 = 1.0;
/// MiB that the gateway may ever have taken.
const MOST_MEMORY: f64 = 128.0;
const FACET: &str = "poet";

/// Name, clients, streamed. Of a stream the time to its first piece counts.
const LOADS: &[(&str, usize, bool)] = &[
    ("1 client", 1, false),
    ("16 clients", 16, false),
    ("64 clients", 64, false),
    ("streams, 1 client", 1, true),
    ("streams, 16 clients", 16, true),
];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["relay", engine] => relay(engine).await,
        _ => table().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The bare proxy.
async fn relay(engine: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("relay on {},", listener.local_addr()?);
    loop {
        let (mut client, _) = listener.accept().await?;
        let mut engine = TcpStream::connect(engine).await?;
        client.set_nodelay(true)?;
        engine.set_nodelay(true)?;
        tokio::spawn(async move { copy_bidirectional(&mut client, &mut engine).await });
    }
}

/// A child that says in a line where it serves; it ends with this process.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    async fn start(mut command: Command, says: &str) -> Result<Self, Failure> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (out, err) = (child.stdout.take().ok_or("no output")?, child.stderr.take().ok_or("no errors")?);
        let address = tokio::select! {
            address = found(out, says) => address,
            address = found(err, says) => address,
        };
        Ok(Self { child, address: address.ok_or("a server ended before it served")? })
    }

    /// The most memory that it had, in MiB.
    fn memory(&self) -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().ok_or("a server ended")?))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

/// The address behind `says`; what is written after is read and dropped, so that nobody waits for a full pipe.
async fn found(output: impl AsyncRead + Send + Unpin + 'static, says: &str) -> Option<SocketAddr> {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some((_, rest)) = line.split_once(says) else { continue };
        let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).unwrap_or(rest.len());
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        return rest[..end].parse().ok();
    }
    std::future::pending().await
}

fn binary(variable: &str) -> Result<PathBuf, Failure> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("{variable} names no binary").into())
}

struct Figures {
    /// Milliseconds.
    p50: f64,
    p99: f64,
    per_second: f64,
}

/// Clients that each wait for an answer before the next request.
async fn load(to: SocketAddr, model: &str, clients: usize, streamed: bool) -> Result<Figures, Failure> {
    let begun = Instant::now();
    let (warm, end) = (begun + Duration::from_secs_f64(SECONDS / 4.0), begun + Duration::from_secs_f64(SECONDS * 1.25));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let body = json!({
                "model": model, "stream": streamed, "messages": [{ "role": "user", "content": "hello there" }],
            });
            tokio::spawn(async move {
                let (mut client, mut times) = (Client::connect(to).await?, Vec::new());
                while Instant::now() < end {
                    let one = Instant::now();
                    let answer = client.post("/v1/chat/completions", &body).await?;
                    if answer.status != 200 {
                        return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)).into());
                    }
                    if one >= warm {
                        times.push(if streamed { answer.first - one } else { one.elapsed() });
                    }
                }
                Ok::<_, Failure>(times)
            })
        })
        .collect();
    let mut times: Vec<Duration> = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let took = warm.elapsed().as_secs_f64();
    times.sort();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    Ok(Figures { p50: at(0.5), p99: at(0.99), per_second: times.len() as f64 / took })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn table() -> Result<(), Failure> {
    let rounds = env::var("BATOS_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut engine = Command::new(binary("BATOS_FAKE_VLLM")?);
    engine.args(["base", "--host=127.0.0.1", "--port=0", "--runtime-updates", "--max-loras=2"]);
    let engine = Server::start(engine, " on ").await?;

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("gateway.yaml");
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fake-vllm/adapters").canonicalize()?;
    let config = json!({
        "model": "base", "engine": { "slots": 2, "seats": 256 }, "pods": [format!("http://{}", engine.address)],
        "facets": [{ "name": FACET, "path": adapters.join("poet"), "rank": 8 }],
    });
    std::fs::write(&file, config.to_string())?;
    let mut gateway = Command::new(binary("BATOS_BIN")?);
    gateway.args(["weaver", "serve", "--listen", "127.0.0.1:0", "--config"]).arg(&file);
    let gateway = Server::start(gateway, "serving on ").await?;

    let mut relay = Command::new(env::current_exe()?);
    relay.args(["relay", &engine.address.to_string()]);
    let relay = Server::start(relay, "relay on ").await?;

    // The first request loads the adapter, and its answer tells what the engine calls it.
    let first = json!({ "model": FACET, "messages": [{ "role": "user", "content": "hello" }] });
    let answer = Client::connect(gateway.address).await?.post("/v1/chat/completions", &first).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let adapter = answer["model"].as_str().ok_or("the first chat has no model")?.to_owned();

    println!(
        "{:<24} {:>8} {:>8} {:>9}   {:>9} {:>8} {:>9}   {:>9}",
        "chats, ms", "p50", "p99", "per s", "bare p50", "p99", "per s", "added p50"
    );
    let mut missed = Vec::new();
    for (name, clients, streamed) in LOADS {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            bare.push(load(relay.address, &adapter, *clients, *streamed).await?);
            ours.push(load(gateway.address, FACET, *clients, *streamed).await?);
        }
        let of = |side: &[Figures], figure: fn(&Figures) -> f64| median(side.iter().map(figure).collect());
        let [p50, p99, rate] = [|f: &Figures| f.p50, |f: &Figures| f.p99, |f: &Figures| f.per_second];
        let added = of(&ours, p50) - of(&bare, p50);
        println!(
            "{name:<24} {:>8.2} {:>8.2} {:>9.0}   {:>9.2} {:>8.2} {:>9.0}   {added:>9.2}",
            of(&ours, p50),
            of(&ours, p99),
            of(&ours, rate),
            of(&bare, p50),
            of(&bare, p99),
            of(&bare, rate),
        );
        if *clients == 1 && added > MOST_ADDED {
            missed.push(format!("{name} adds more than {MOST_ADDED} ms"));
        }
    }
    let memory = gateway.memory()?;
    println!("the gateway had at most {memory:.0} MiB (of streams, the time to the first piece)");
    if memory > MOST_MEMORY {
        missed.push(format!("more than {MOST_MEMORY} MiB"));
    }
    match missed.is_empty() {
        true => Ok(()),
        false => Err(missed.join(", ").into()),
    }
}
