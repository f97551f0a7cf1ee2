//! What the benchmarks share: workloads as processes of their own, each of which prints one line of JSON.

use batos_covenant::{Encoding, Reply, decode};
use batos_graph::ObjectId;
use batos_uvm::universe::{Authority, Delivery, Message, Universe, Work};
use std::{
    error::Error,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

pub type Failure = Box<dyn Error + Send + Sync>;

/// Bytes of one bare write, a page.
const PAGE: usize = 4096;
/// Length of the file that is written round and round, in pages.
const PAGES: u64 = 4096;

/// kB of this process that are resident now.
pub fn resident() -> Result<u64, Failure> {
    field("/proc/self/status", "VmRSS:")
}

/// Bytes that this process has sent to the disk.
pub fn written() -> Result<u64, Failure> {
    field("/proc/self/io", "write_bytes:")
}

fn field(file: &str, name: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("{file} has no {name}"))?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}

/// Bare syncs: one page into a file of full length, then `fdatasync`. Answers the times of each.
pub fn bare_syncs(path: &Path, seconds: f64) -> Result<Vec<Duration>, Failure> {
    let mut file = File::create(path)?;
    for _ in 0..PAGES {
        file.write_all(&[0; PAGE])?;
    }
    file.sync_all()?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed().as_secs_f64() < seconds {
        let one = Instant::now();
        file.seek(SeekFrom::Start(times.len() as u64 % PAGES * PAGE as u64))?;
        file.write_all(&[times.len() as u8; PAGE])?;
        file.sync_data()?;
        times.push(one.elapsed());
    }
    Ok(times)
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Carries out a message as the operator's; an error reply is a failure.
pub async fn send(universe: &Universe, object: ObjectId, work: Work, id: Option<String>) -> Result<(), Failure> {
    let message = Message {
        object,
        authority: Authority::Operator,
        sender: "bench".to_owned(),
        id,
        digest: [0; 32],
        encoding: Encoding::MessagePack,
        work,
    };
    match universe.deliver(&message).await? {
        Delivery::Replied(reply) => match decode(&reply)?.0 {
            Reply::Ok(_) => Ok(()),
            Reply::Error { error } => Err(error.message.into()),
        },
        Delivery::NotUnderstood(missing) => Err(format!("nobody understands {:?}", missing.selector).into()),
    }
}
