//! One target, many inputs.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    memory::peak,
    mutate::{Dice, mutate},
    targets::Target,
};

/// Stack of the thread that is fed: that of a worker's threads.
const STACK: usize = 2 << 20;
/// Longest time for one input; builds for tests are slow, and machines are shared.
const PATIENCE: Duration = Duration::from_secs(5);
/// Inputs with outcomes of their own that are kept.
const POOL: usize = 4096;
/// Tries to make a failing input smaller.
const SHRINKS: usize = 2000;

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seed: u64,
    pub time: Duration,
}

#[derive(Debug)]
pub struct Report {
    pub cases: u64,
    /// Different outcomes that were seen.
    pub outcomes: usize,
    /// Most bytes that an input has cost.
    pub peak: usize,
}

/// Feeds a target. An error tells the input that failed, and the file that it is in.
pub fn run(target: &'static Target, settings: Settings) -> Result<Report, String> {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || feed_all(target, settings));
    let thread = thread.map_err(|e| e.to_string())?;
    thread.join().unwrap_or_else(|_| Err("the runner itself panicked".to_owned()))
}

/// Inputs that once failed: `tests/fuzz/failures/TARGET/*`.
fn failures(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("failures").join(target.name);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// Where the input is written before it is fed: a stack that overflows ends the process.
fn last_file(target: &Target) -> PathBuf {
    std::env::temp_dir().join(format!("batos-fuzz-{}-{}", target.name, std::process::id()))
}

fn feed_all(target: &Target, settings: Settings) -> Result<Report, String> {
    let mut dice = Dice::new(settings.seed);
    // What once failed, and what is right.
    let mut pool = failures(target).map_err(|e| format!("failures of {}: {e}", target.name))?;
    pool.extend((target.seeds)());
    let last = last_file(target);
    let file = File::create(&last).map_err(|e| format!("{}: {e}", last.display()))?;
    let mut report = Report { cases: 0, outcomes: 0, peak: 0 };
    let mut outcomes = HashSet::new();
    let begun = Instant::now();
    let mut next = 0;
    // Failures are told by this runner, not as they happen.
    std::panic::set_hook(Box::new(|_| {}));
    let done = loop {
        // First all inputs as they are.
        let mut input = pool.get(next).cloned().unwrap_or_default();
        if next < pool.len() {
            next += 1;
        } else {
            input = dice.pick(&pool).cloned().unwrap_or_default();
            mutate(&mut input, &pool, &mut dice);
        }
        if begun.elapsed() >= settings.time {
            break Ok(());
        }
        // Not a new file each time: file systems flush those.
        if let Err(error) = file.set_len(input.len() as u64).and_then(|()| file.write_all_at(&input, 0)) {
            break Err(format!("{}: {error}", last.display()));
        }
        report.cases += 1;
        match feed(target, &input) {
            Ok((outcome, bytes)) => {
                report.peak = report.peak.max(bytes);
                if outcomes.insert(outcome) && pool.len() < POOL {
                    pool.push(input);
                    next = pool.len();
                }
            }
            Err(first) => {
                let small = shrink(target, input, &first);
                let _ = fs::write(&last, &small);
                let what = feed(target, &small).err().unwrap_or(first);
                break Err(format!(
                    "{what}\n  seed {}, input in {}:\n{}",
                    settings.seed,
                    last.display(),
                    shown(&small)
                ));
            }
        }
    };
    let _ = std::panic::take_hook();
    report.outcomes = outcomes.len();
    done.map(|()| {
        let _ = fs::remove_file(&last);
        report
    })
}

/// The outcome of one input with the bytes it cost, or how it failed.
fn feed(target: &Target, input: &[u8]) -> Result<(String, usize), String> {
    let begun = Instant::now();
    let (done, bytes) = peak(|| catch_unwind(AssertUnwindSafe(|| (target.feed)(input))));
    let took = begun.elapsed();
    let outcome = done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("panic: {}", text.unwrap_or("without text"))
    })?;
    let most = (target.memory)(input.len());
    if bytes > most {
        return Err(format!("memory: {bytes} bytes for an input of {}, at most {most}", input.len()));
    }
    if took > PATIENCE {
        return Err(format!("time: {took:?} for an input of {} bytes", input.len()));
    }
    Ok((outcome, bytes))
}

/// Leaves out what the failure does not need.
fn shrink(target: &Target, mut input: Vec<u8>, failure: &str) -> Vec<u8> {
    let class = |failure: &str| failure.split(':').next().unwrap_or_default().to_owned();
    let wanted = class(failure);
    let (mut size, mut tries) = (input.len() / 2, 0);
    while size > 0 && tries < SHRINKS {
        let mut at = 0;
        while at < input.len() && tries < SHRINKS {
            tries += 1;
            let mut less = input.clone();
            less.drain(at..(at + size).min(input.len()));
            match feed(target, &less) {
                Err(failure) if class(&failure) == wanted => input = less,
                _ => at += size,
            }
        }
        size /= 2;
    }
    input
}

/// As text if it is text, else as bytes.
fn shown(input: &[u8]) -> String {
    const MOST: usize = 600;
    let part = input.get(..MOST).unwrap_or(input);
    match std::str::from_utf8(part) {
        Ok(text) => format!("{text:?}"),
        Err(_) => part.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}
