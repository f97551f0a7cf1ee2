//! Random concurrent histories for whoever claims to isolate transactions, and what judges them: cycles of dependencies, in
//! the manner of Elle (Kingsbury and Alvaro, VLDB 2020), and for small ones a search through all orders. Each is the other's
//! test. The crate `adya` does the first too; it brings clap with all its features, which batos itself would be built with.
//!
//! Whoever tests draws a [`Plan`], carries its transactions out with as many workers as it has, tells a [`Recorder`] what
//! each did and saw, and asks the [`History`].

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cycles;
mod orders;
mod plan;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

pub use plan::{Dice, Kind, Plan, Size, Step, runs};

/// What a place holds: a list's elements; of others one value, or nothing.
pub type Value = Vec<u32>;

/// What a transaction did to a place, or saw there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Read(u8, Value),
    Append(u8, u32),
    /// Nothing: the place is empty now.
    Write(u8, Option<u32>),
}

impl Op {
    pub fn place(&self) -> u8 {
        match self {
            Self::Read(place, _) | Self::Append(place, _) | Self::Write(place, _) => *place,
        }
    }

    fn writes(&self) -> bool {
        !matches!(self, Self::Read(..))
    }
}

/// What transactions are held against. Both include the order of time: who begins after another has ended comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// One after the other.
    Serial,
    /// Each reads one moment, which is not before its beginning, and nobody else writes what it writes from there to its end.
    Snapshot,
}

#[derive(Debug, Clone)]
struct Transaction {
    begun: usize,
    /// `None`: nobody knows whether it happened.
    ended: Option<usize>,
    ops: Vec<Op>,
}

/// Notes transactions as they happen; each beginning and end is a moment of its own.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<(usize, Vec<Transaction>)>);

/// A transaction that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun(usize);

impl Recorder {
    fn moment<T>(&self, note: impl FnOnce(usize, &mut Vec<Transaction>) -> T) -> T {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.0 += 1;
        let (now, transactions) = &mut *noted;
        note(*now, transactions)
    }

    pub fn begin(&self) -> Begun {
        self.moment(|now, _| Begun(now))
    }

    /// What the transaction did, in its order. One that failed and left nothing is not told.
    pub fn committed(&self, Begun(begun): Begun, ops: Vec<Op>) {
        self.moment(|now, all| all.push(Transaction { begun, ended: Some(now), ops }));
    }

    /// It may have happened, now or later.
    pub fn unknown(&self, Begun(begun): Begun, ops: Vec<Op>) {
        self.moment(|_, all| all.push(Transaction { begun, ended: None, ops }));
    }

    pub fn history(self) -> History {
        History { transactions: self.0.into_inner().unwrap_or_else(PoisonError::into_inner).1 }
    }
}

/// Transactions that happened, or may have.
#[derive(Debug, Clone)]
pub struct History {
    transactions: Vec<Transaction>,
}

impl History {
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transactions.iter().try_for_each(|transaction| writeln!(f, "{transaction}"))
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.ended.map_or("?".to_owned(), |ended| ended.to_string());
        write!(f, "from {} to {ended}: {:?}", self.begun, self.ops)
    }
}
