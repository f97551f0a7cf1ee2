//! The data: redb's pages, and over them the rows of groups that only the log has so far. A group costs redb nothing this
//! way. Its rows are flushed into pages later, many groups at once: a row that was written again and again goes there once.

use std::{
    collections::BTreeMap,
    iter,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, WriteTransaction};

use super::{damaged, log::each_row};
use crate::StoreError;

pub(super) const DATA: TableDefinition<&[u8], &[u8]> = TableDefinition::new("data");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Rows by key, `None` for a deleted one.
pub(super) type Rows = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

type Pages = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// All rows as they are at one time.
#[derive(Clone)]
pub(super) struct Layers {
    /// Of the last groups. Hides what is below.
    recent: Arc<Rows>,
    /// Those that are being flushed.
    leaving: Arc<Rows>,
    pages: Arc<Pages>,
}

impl Layers {
    /// What `of` makes of a row.
    pub fn get<T>(&self, key: &[u8], of: impl Fn(&[u8]) -> Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match self.recent.get(key).or_else(|| self.leaving.get(key)) {
            Some(row) => row.as_deref().map(of).transpose(),
            None => self.pages.get(key).map_err(damaged)?.map(|row| of(row.value())).transpose(),
        }
    }

    /// What `of` makes of the first rows of a range, in the order of their keys.
    pub fn scan<T>(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        of: impl Fn(&[u8], &[u8]) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        if start >= end {
            return Ok(found);
        }
        let mut above = self.above_pages(start, end).peekable();
        let pages = self.pages.range(start..end).map_err(damaged)?;
        for row in pages.map(Some).chain([None]) {
            let row = row.transpose().map_err(damaged)?;
            let bound = row.as_ref().map(|(key, _)| key.value());
            let mut is_hidden = false;
            while found.len() < limit
                && let Some((key, row)) = above.next_if(|(key, _)| bound.is_none_or(|bound| *key <= bound))
            {
                is_hidden = bound == Some(key);
                found.extend(row.map(|row| of(key, row)).transpose()?);
            }
            if found.len() >= limit {
                break;
            }
            if let Some((key, row)) = row.filter(|_| !is_hidden) {
                found.push(of(key.value(), row.value())?);
            }
        }
        Ok(found)
    }

    fn above_pages<'a>(&'a self, start: &'a [u8], end: &'a [u8]) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let range = |rows: &'a Rows| {
            let range = rows.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
            range.map(|(key, row)| (key.as_ref(), row.as_deref())).peekable()
        };
        let (mut recent, mut leaving) = (range(&self.recent), range(&self.leaving));
        iter::from_fn(move || match (recent.peek(), leaving.peek()) {
            (Some((newer, _)), Some((older, _))) if older < newer => leaving.next(),
            (Some((newer, _)), Some((older, _))) if older == newer => {
                leaving.next();
                recent.next()
            }
            (Some(_), _) => recent.next(),
            (None, _) => leaving.next(),
        })
    }
}

/// The data of a store. One writer puts rows, one group after the other; flushing goes on beside it.
pub(super) struct Data {
    layers: RwLock<Layers>,
    /// Held while rows go into pages, and until readers find them there.
    flushing: Mutex<()>,
    database: Database,
}

impl Data {
    /// Once the file has its tables.
    pub fn new(database: Database) -> Result<Self, StoreError> {
        let layers = Layers { recent: Arc::default(), leaving: Arc::default(), pages: pages(&database)? };
        Ok(Self { layers: RwLock::new(layers), flushing: Mutex::new(()), database })
    }

    /// As it is now. No row is put while this is held.
    pub fn now(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the rows of a group, as the log has them.
    pub fn put(&self, rows: &[u8]) -> Result<(), StoreError> {
        self.change(|layers| {
            // A copy when a snapshot holds the rows.
            let recent = Arc::make_mut(&mut layers.recent);
            each_row(rows, |key, row| {
                recent.insert(key.into(), row.map(Into::into));
                Ok(())
            })
        })
    }

    /// Lets what is recent leave for the pages, for `flush`. Nothing leaves while others are still on their way.
    pub fn leave(&self) -> Option<Arc<Rows>> {
        self.change(|layers| {
            let is_free = layers.leaving.is_empty();
            is_free.then(|| {
                layers.leaving = std::mem::take(&mut layers.recent);
                layers.leaving.clone()
            })
        })
    }

    /// Writes what left into pages, without a sync: the log still has it. `sequence`: its last group.
    pub fn flush(&self, leaving: &Arc<Rows>, sequence: u64) -> Result<(), StoreError> {
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&self.now().leaving, leaving) {
            return Ok(()); // a checkpoint was quicker
        }
        let mut transaction = self.database.begin_write().map_err(damaged)?;
        write(&transaction, leaving)?;
        write_sequence(&transaction, sequence)?;
        transaction.set_durability(Durability::None).map_err(damaged)?;
        transaction.commit().map_err(damaged)?;
        let pages = pages(&self.database)?;
        self.change(|layers| (layers.pages, layers.leaving) = (pages, Arc::default()));
        Ok(())
    }

    /// Writes all rows into pages, durably: the log may begin anew. Nothing may be put meanwhile.
    pub fn checkpoint(&self, sequence: u64) -> Result<(), StoreError> {
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = self.now().clone();
        let transaction = self.database.begin_write().map_err(damaged)?;
        write(&transaction, &layers.leaving)?;
        write(&transaction, &layers.recent)?;
        write_sequence(&transaction, sequence)?;
        commit_durably(transaction)?;
        let pages = pages(&self.database)?;
        self.change(|layers| *layers = Layers { recent: Arc::default(), leaving: Arc::default(), pages });
        Ok(())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Layers) -> T) -> T {
        change(&mut self.layers.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn pages(database: &Database) -> Result<Arc<Pages>, StoreError> {
    let reading = database.begin_read().map_err(damaged)?;
    reading.open_table(DATA).map(Arc::new).map_err(damaged)
}

fn write(transaction: &WriteTransaction, rows: &Rows) -> Result<(), StoreError> {
    let mut data = transaction.open_table(DATA).map_err(damaged)?;
    for (key, row) in rows {
        match row {
            Some(row) => data.insert(key.as_ref(), row.as_ref()),
            None => data.remove(key.as_ref()),
        }
        .map_err(damaged)?;
    }
    Ok(())
}

fn write_sequence(transaction: &WriteTransaction, sequence: u64) -> Result<(), StoreError> {
    transaction.open_table(META).map_err(damaged)?.insert("log", sequence).map_err(damaged)?;
    Ok(())
}

/// Commits with a sync. redb writes down which pages are free, so that opening after a crash need not walk all of them;
/// at every commit that would be slow, at a checkpoint it is not.
pub(super) fn commit_durably(mut transaction: WriteTransaction) -> Result<(), StoreError> {
    transaction.set_durability(Durability::Immediate).map_err(damaged)?;
    transaction.set_quick_repair(true);
    transaction.commit().map_err(damaged)
}
