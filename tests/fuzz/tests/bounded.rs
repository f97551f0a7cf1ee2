//! What once failed and some seconds of damaged input, for each target.

use std::time::Duration;

use batos_fuzz::{Settings, TARGETS, run};

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// One test for all: a panic hook is the process's.
#[test]
fn damaged_input_is_refused_in_words_within_bounds() {
    let seconds = setting("BATOS_FUZZ_SECONDS").unwrap_or(3.0);
    let settings = Settings { seed: setting("BATOS_FUZZ_SEED").unwrap_or(1), time: Duration::from_secs_f64(seconds) };
    for target in TARGETS {
        let report = run(target, settings).unwrap_or_else(|failure| panic!("{}: {failure}", target.name));
        println!("{}: {report:?}", target.name);
        assert!(report.cases > 100 && report.outcomes > 3, "{}: {report:?}", target.name);
    }
}
