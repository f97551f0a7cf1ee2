//! What the benchmarks share: workloads as processes of their own, each of which prints one line of JSON.

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
