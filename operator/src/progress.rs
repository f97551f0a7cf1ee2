//! What takes longer than a moment says so on standard error.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

use crate::style;

/// Nothing is told before this.
const QUIET: Duration = Duration::from_secs(2);
/// Time between two reports: on a terminal, where each replaces the one before, and elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Counts what is done.
pub struct Progress {
    what: &'static str,
    begun: Instant,
    told: Option<Instant>,
    on_terminal: bool,
}

impl Progress {
    /// `what` reads well after a number: "rows are written".
    pub fn new(what: &'static str) -> Self {
        Self { what, begun: Instant::now(), told: None, on_terminal: stderr().is_terminal() }
    }

    pub fn at(&mut self, done: u64, of: Option<u64>) {
        let pause = if self.on_terminal { ON_TERMINAL } else { ELSEWHERE };
        if self.begun.elapsed() < QUIET || self.told.is_some_and(|told| told.elapsed() < pause) {
            return;
        }
        self.told = Some(Instant::now());
        let of = of.map_or(String::new(), |of| format!(" of {of}"));
        let line = style::note(format!("{done}{of} {}, {} s", self.what, self.begun.elapsed().as_secs()));
        let mut err = stderr().lock();
        // A terminal that is gone is no reason to stop.
        let _ = match self.on_terminal {
            true => write!(err, "\r\x1b[K{line}"),
            false => writeln!(err, "{line}"),
        };
        let _ = err.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.on_terminal && self.told.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// Waits for what may take long, and then says what it is.
pub async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let begun = Instant::now();
    loop {
        let pause = if begun.elapsed() < QUIET { QUIET } else { ELSEWHERE };
        match tokio::time::timeout(pause, &mut work).await {
            Ok(done) => return done,
            Err(_) => eprintln!("{}", style::note(format!("{what}, {} s so far", begun.elapsed().as_secs()))),
        }
    }
}
