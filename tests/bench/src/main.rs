//! How fast the virtual machine is beside Lua 5.4: the same programs, in the same process, in turns.
//!
//! `batos-bench [NAME...]` prints milliseconds and their ratio; metering is on. `BATOS_BENCH_ROUNDS` sets the rounds.

use std::{collections::HashMap, env, fs, path::Path, process::ExitCode, sync::Arc, time::Instant};

use batos_graph::{ObjectId, Record, Rev};
use batos_uvm::{
    image,
    vm::{Exit, Limits, Needs, Turn},
};
use mlua::{Function, Lua};

type Failure = Box<dyn std::error::Error>;

/// Name, problem size, whether it counts for the mean: the sizes that are-we-fast-yet runs.
const BENCHMARKS: &[(&str, u32, bool)] = &[
    ("bounce", 75, true),
    ("list", 50, true),
    ("mandelbrot", 500, true),
    ("nbody", 250_000, true),
    ("permute", 50, true),
    ("queens", 50, true),
    ("sieve", 150, true),
    ("storage", 20, true),
    ("towers", 30, true),
    ("json", 5, true),
    ("richards", 3, true),
    ("deltablue", 100, true),
    ("cd", 10, true),
    ("fib", 30, false),
    ("sends", 10_000_000, false),
];
const LIMITS: Limits = Limits { fuel: u64::MAX / 2, heap_bytes: 1 << 30, depth: 20_000, fan_out: 1_000, hops: 64 };
const ROUNDS: usize = 7;

/// The image, and nothing else.
struct World {
    records: HashMap<ObjectId, (Rev, Arc<Record>)>,
    names: HashMap<String, ObjectId>,
}

impl World {
    fn new() -> Result<Self, Failure> {
        let image = image::genesis()?;
        let names = image.iter().filter_map(|(id, record)| Some((record.name.clone()?, *id))).collect();
        let records = image.into_iter().map(|(id, record)| (id, (1, Arc::new(record)))).collect();
        Ok(Self { records, names })
    }

    fn run(&self, source: &str) -> Result<(), Failure> {
        let mut turn = Turn::eval(image::GENESIS, source, LIMITS, [0; 32])?;
        loop {
            match turn.run(u64::MAX) {
                Exit::Paused => {}
                Exit::Fault(Needs { objects, names, .. }) => {
                    objects.into_iter().for_each(|id| turn.supply(id, self.records.get(&id).cloned()));
                    names.iter().for_each(|name| turn.supply_name(name, self.names.get(name).copied()));
                }
                Exit::Done => return Ok(()),
                Exit::Failed(error) => return Err(format!("{error} {:?}", error.stack).into()),
                Exit::NotUnderstood(missing) => return Err(format!("nobody understands {:?}", missing.selector).into()),
            }
        }
    }
}

fn milliseconds(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure() -> Result<(), Failure> {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let rounds = env::var("BATOS_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let world = World::new()?;
    let lua = Lua::new();
    let path = here.join("lua/?.lua");
    lua.globals().get::<mlua::Table>("package")?.set("path", path.display().to_string())?;
    let require: Function = lua.globals().get("require")?;
    println!("{:<12} {:>9} {:>9} {:>7}", "", "batos ms", "lua ms", "ratio");
    let mut ratios = Vec::new();
    for (name, size, counts) in BENCHMARKS {
        let source = here.join(format!("../../operator/uvm/bench/{name}.bt"));
        let is_wanted = wanted.is_empty() || wanted.iter().any(|other| other == name);
        if !is_wanted || !source.exists() || !here.join(format!("lua/{name}.lua")).exists() {
            continue;
        }
        let source = format!("{}\nbench run: {size}", fs::read_to_string(source)?);
        let twin: Function = require.call(*name)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(milliseconds(|| world.run(&source).map_err(|e| format!("{name}: {e}").into()))?);
            theirs.push(milliseconds(|| Ok(twin.call::<mlua::Value>(*size).map(|_| ())?))?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{name:<12} {ours:>9.1} {theirs:>9.1} {:>7.2}", ours / theirs);
        if *counts {
            ratios.push(ours / theirs);
        }
    }
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    println!("{:<12} {:>9} {:>9} {mean:>7.2}  ({} benchmarks)", "geomean", "", "", ratios.len());
    Ok(())
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("batos-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
