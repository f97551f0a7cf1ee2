//! `batos-fuzz [TARGET [SECONDS]]`: all targets for ten seconds each, or one for as long as is said.

use std::{process::ExitCode, time::Duration};

use batos_fuzz::{Settings, TARGETS, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = arguments.first();
    let seconds = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(10.0);
    let clock =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = std::env::var("BATOS_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(clock);
    let targets: Vec<_> = TARGETS.iter().filter(|target| wanted.is_none_or(|name| target.name == name)).collect();
    if targets.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("no such target; there are: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    for target in targets {
        println!("{}, seed {seed}", target.name);
        match run(target, Settings { seed, time: Duration::from_secs_f64(seconds) }) {
            Ok(report) => println!("  {report:?}"),
            Err(failure) => {
                println!("  {failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
