//! An image on its way into a universe that has nothing.
//!
//! The universe's version, which every batos reads before anything else, says meanwhile that a restore has not ended: nobody
//! opens half an image. Every page rests on that row as this restore wrote it, and whoever goes on with an interrupted
//! restore writes it anew: one who was given up and still lives writes nothing more. The last commit puts the image's own
//! version there.

use batos_graph::{Batch, Expect, Key, KeySpace, Put, Rev, Store, StoreError, Versioned};

use super::{
    ImageRow, UniverseError, is_empty, now,
    version::{self, Restore, Version, this_batos},
};

pub struct Restoring<'s> {
    store: &'s dyn Store,
    keys: KeySpace,
    restore: Restore,
    still: Expect,
    /// What the image says of itself.
    version: Option<Version>,
}

impl<'s> Restoring<'s> {
    /// Begins to restore the image with this digest, or goes on with it. `once` names the request: `None` is the answer when
    /// it has been carried out already, which is no failure for whoever repeats it. A universe that has anything else is
    /// refused.
    pub async fn begin(
        store: &'s dyn Store,
        universe: &str,
        image: &str,
        once: Option<&str>,
    ) -> Result<Option<Self>, UniverseError> {
        let keys = KeySpace::new(universe);
        let wanted = Restore { image: image.to_owned(), once: once.map(str::to_owned), done: false };
        let found = version::load(store, keys.version()).await?;
        let rev = match found {
            None if is_empty(store, universe).await? => None,
            Some((rev, Version { restore: Some(found), .. })) if !found.done => match found == wanted {
                true => Some(rev),
                false => return Err(UniverseError::Unrestored(found.image)),
            },
            Some((_, Version { restore: Some(found), .. })) if once.is_some() && found.once == wanted.once => {
                return Ok(None);
            }
            _ => return Err(UniverseError::NotEmpty(universe.to_owned())),
        };
        let key = keys.version();
        let mut this = Self { store, keys, restore: wanted, still: Expect { key: key.clone(), rev }, version: None };
        // An older batos, which does not know of restores, knows no such format either.
        let unfinished = Version {
            format: u32::MAX,
            records: batos_graph::FORMAT,
            batos: this_batos(),
            image: Vec::new(),
            restore: Some(this.restore.clone()),
        };
        let put = vec![Put { key, bytes: unfinished.encode()? }];
        this.still.rev = this.commit(put, Vec::new()).await?.first().copied();
        Ok(Some(this))
    }

    /// Writes a page of the image.
    pub async fn page(&mut self, rows: Vec<ImageRow>) -> Result<(), UniverseError> {
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            let key = self.keys.with_suffix(&row.key);
            match key == self.still.key {
                true => self.version = Some(Version::decode(&row.value)?),
                false => page.push((key, Versioned { rev: row.rev, bytes: row.value })),
            }
        }
        self.store.restore(page, Some(self.still.clone())).await.map_err(UniverseError::Store)
    }

    /// Lets the universe be opened.
    pub async fn finish(self) -> Result<(), UniverseError> {
        let key = self.still.key.clone();
        let (put, delete) = match &self.version {
            Some(version) => {
                let restore = Some(Restore { done: true, ..self.restore.clone() });
                (vec![Put { key, bytes: Version { restore, ..version.clone() }.encode()? }], Vec::new())
            }
            // A universe of before there were versions.
            None => (Vec::new(), vec![key]),
        };
        self.commit(put, delete).await.map(drop)
    }

    async fn commit(&self, put: Vec<Put>, delete: Vec<Key>) -> Result<Vec<Rev>, UniverseError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| UniverseError::Internal(format!("no randomness: {e}")))?;
        let batch = Batch {
            marker: self.keys.marker(id),
            // Housekeeping goes by it: seconds since 1970.
            marker_bytes: (now() / 1000).to_be_bytes().to_vec(),
            expect: vec![self.still.clone()],
            lock: Vec::new(),
            put,
            delete,
            passes: Default::default(),
        };
        match self.store.commit(batch).await {
            Ok(committed) => Ok(committed.revs),
            Err(StoreError::Conflict(_)) => {
                Err(UniverseError::NotYet("somebody else restores this universe".to_owned()))
            }
            Err(error) => Err(UniverseError::Store(error)),
        }
    }
}
