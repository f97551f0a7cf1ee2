//! A disk whose power can be cut: it keeps every write between two syncs, and makes the images that a crash may leave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io,
    sync::{Arc, Mutex},
};

use batos_graph::{RedbStore, StoreError};
use redb::StorageBackend;

/// Bytes of log between checkpoints: few, so that a short load has many.
const LOG: u64 = 60_000;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
pub enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// The store's file and its log.
pub type Image = [Vec<u8>; 2];

#[derive(Debug, Default)]
struct State {
    /// The files as the process sees them.
    files: Image,
    /// Operations on either file, in their order.
    log: Vec<(usize, Op)>,
    /// Syncs that go well before all fail.
    good_syncs: Option<usize>,
}

/// A disk with two files. Cheap to clone: the test keeps one while the store has another.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

/// One file of a disk.
#[derive(Debug)]
struct File(Disk, usize);

impl Disk {
    pub fn of(image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { files: image, ..State::default() })))
    }

    pub fn open(&self) -> Result<RedbStore, StoreError> {
        RedbStore::open_on(File(self.clone(), 0), File(self.clone(), 1), LOG)
    }

    pub fn image(&self) -> Image {
        self.0.lock().unwrap().files.clone()
    }

    /// From the `count`th sync on from now, all fail.
    pub fn fail_after(&self, count: usize) {
        self.0.lock().unwrap().good_syncs = Some(count);
    }

    /// How many operations were done.
    pub fn now(&self) -> usize {
        self.0.lock().unwrap().log.len()
    }

    pub fn log(&self) -> Vec<(usize, Op)> {
        self.0.lock().unwrap().log.clone()
    }
}

pub fn apply(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if image.len() < end {
                image.resize(end, 0);
            }
            image[start..end].copy_from_slice(data);
        }
        Op::SetLen(len) => image.resize(*len as usize, 0),
        Op::Sync => {}
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().unwrap().files[self.1].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.0.lock().unwrap();
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(state.files[self.1].get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.done(Op::SetLen(len));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.done(Op::Write(offset, data.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(left) = &mut self.0.0.lock().unwrap().good_syncs {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the disk is broken"))?;
        }
        self.done(Op::Sync);
        Ok(())
    }
}

impl File {
    fn done(&self, op: Op) {
        let state = &mut *self.0.0.lock().unwrap();
        apply(&mut state.files[self.1], &op);
        state.log.push((self.1, op));
    }
}

/// Marsaglia's xorshift64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// Seeded by `BATOS_CRASH_SEED` if that is set. The seed is printed.
    pub fn new() -> Self {
        let seed = std::env::var("BATOS_CRASH_SEED").ok().map(|text| text.parse().unwrap()).unwrap_or_else(|| {
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).unwrap();
            u64::from_le_bytes(seed)
        });
        println!("BATOS_CRASH_SEED={seed}");
        Self::of(seed)
    }

    pub fn of(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Another one, which goes its own way.
    pub fn fork(&mut self) -> Self {
        Self::of(self.below(usize::MAX) as u64)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// What survives of the operations since the last sync.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// All of them.
    All,
    /// All but the last, of which only the first sectors.
    Torn,
    /// Some sectors of some of them, written in any order.
    Any,
}

/// Everything that a disk did, to be cut between any two operations.
pub struct Cuts {
    /// What the files held after their last syncs.
    synced: Image,
    /// What was done to each after that.
    rest: [Vec<Op>; 2],
    log: Vec<(usize, Op)>,
    done: usize,
}

impl Cuts {
    pub fn new(start: Image, log: Vec<(usize, Op)>) -> Self {
        Self { synced: start, rest: [vec![], vec![]], log, done: 0 }
    }

    /// The files after a crash just before operation `at`, which never goes back. What was synced holds, the rest has
    /// met its fate.
    pub fn image(&mut self, at: usize, fate: Fate, random: &mut Random) -> Image {
        for (file, op) in &self.log[self.done..at] {
            match op {
                Op::Sync => self.rest[*file].drain(..).for_each(|op| apply(&mut self.synced[*file], &op)),
                op => self.rest[*file].push(op.clone()),
            }
        }
        self.done = at;
        let mut image = self.synced.clone();
        for (file, image) in image.iter_mut().enumerate() {
            let mut rest = self.rest[file].clone();
            match fate {
                Fate::All => {}
                Fate::Torn => {
                    let was_last = at > 0 && self.log[at - 1].0 == file;
                    if let Some(Op::Write(_, data)) = rest.last_mut().filter(|_| was_last) {
                        data.truncate(random.below(data.len().div_ceil(SECTOR)) * SECTOR);
                    }
                }
                Fate::Any => {
                    for last in (1..rest.len()).rev() {
                        rest.swap(last, random.below(last + 1));
                    }
                    rest = rest.into_iter().flat_map(|op| sectors(op, random)).collect();
                }
            }
            rest.iter().for_each(|op| apply(image, op));
        }
        image
    }
}

/// An operation, or a part of it, or nothing.
fn sectors(op: Op, random: &mut Random) -> Vec<Op> {
    match (random.below(4), op) {
        (0, _) => vec![],
        (1, Op::Write(offset, data)) => data
            .chunks(SECTOR)
            .enumerate()
            .filter(|_| random.below(2) == 0)
            .map(|(n, sector)| Op::Write(offset + (n * SECTOR) as u64, sector.to_vec()))
            .collect(),
        (_, op) => vec![op],
    }
}
