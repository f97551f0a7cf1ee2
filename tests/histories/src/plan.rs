//! What the workers of a history are to do, drawn from a seed.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// What places hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Lists,
    Registers,
    /// What is there or not.
    Switches,
}

/// A step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Read(u8),
    Append(u8, u32),
    Write(u8, u32),
    /// Puts the value there if there is none, else takes away what is there.
    Switch(u8, u32),
}

impl Step {
    pub fn place(&self) -> u8 {
        match self {
            Self::Read(place) | Self::Append(place, _) | Self::Write(place, _) | Self::Switch(place, _) => *place,
        }
    }
}

/// Marsaglia's xorshift64: the same numbers everywhere.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds begin alike: let them part first.
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        dice
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// How many there are of what.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub workers: usize,
    /// Transactions of each worker.
    pub each: usize,
    pub places: u8,
}

/// Transactions of each worker, which go on at once.
#[derive(Debug, Clone)]
pub struct Plan {
    pub workers: Vec<Vec<Vec<Step>>>,
}

impl Plan {
    /// As many as the search through all orders takes, on places that they must meet on.
    pub const SMALL: Size = Size { workers: 3, each: 3, places: 3 };
    pub const LARGE: Size = Size { workers: 6, each: 40, places: 5 };

    /// Every value that it writes is another.
    pub fn draw(kind: Kind, size: Size, seed: u64) -> Self {
        let (mut dice, values) = (Dice::new(seed), AtomicU32::new(1));
        let mut step = |_| {
            let place = dice.below(size.places.into()) as u8;
            let value = values.fetch_add(1, Ordering::Relaxed);
            match (kind, dice.below(2)) {
                (_, 0) => Step::Read(place),
                (Kind::Lists, _) => Step::Append(place, value),
                (Kind::Registers, _) => Step::Write(place, value),
                (Kind::Switches, _) => Step::Switch(place, value),
            }
        };
        let mut lengths = Dice::new(!seed);
        let mut transaction = |_| (0..=lengths.below(4)).map(&mut step).collect();
        let workers = (0..size.workers).map(|_| (0..size.each).map(&mut transaction).collect()).collect();
        Self { workers }
    }
}

/// Seeds of histories to run, for as many seconds as BATOS_HISTORIES_SECONDS says (2); BATOS_HISTORIES_SEED names the first.
pub fn runs() -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("BATOS_HISTORIES_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    });
    let end = Instant::now() + Duration::from_secs(number("BATOS_HISTORIES_SECONDS").unwrap_or(2));
    (first..).enumerate().take_while(move |(index, _)| *index == 0 || Instant::now() < end).map(|(_, seed)| seed)
}
