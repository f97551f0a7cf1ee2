//! What a universe is opened with.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use batos_graph::{MAX_BATCH, ObjectId, Record, RecordError};

use super::{
    Retention, UniverseError,
    version::{BatosVersion, this_batos},
};

/// Seconds since 1970. Rows that are kept for a time carry it.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The objects that a batos ships.
#[derive(Debug, Clone)]
pub struct Image {
    pub batos: BatosVersion,
    pub objects: Vec<(ObjectId, Record)>,
}

impl Image {
    /// That of this batos.
    pub fn shipped() -> Result<Self, UniverseError> {
        Ok(Self { batos: this_batos(), objects: crate::image::genesis()? })
    }

    /// Tells an image that is not the shipped one from others.
    pub(super) fn digest(&self) -> Result<[u8; 32], UniverseError> {
        let mut digest = blake3::Hasher::new();
        for (id, record) in &self.objects {
            let bytes = record.encode().map_err(|source: RecordError| UniverseError::Record { object: *id, source })?;
            digest.update(&id.0).update(&(bytes.len() as u64).to_be_bytes()).update(&bytes);
        }
        Ok(*digest.finalize().as_bytes())
    }
}

/// What a universe is opened with, beside its name and its store.
#[derive(Clone)]
pub struct Opening {
    /// Instead of what this batos ships. That is parsed only when a universe has another: it takes longer than all else
    /// that opening does.
    pub image: Option<Image>,
    pub retention: Retention,
    pub clock: Clock,
    /// Bytes of records that one commit of an upgrade holds.
    pub upgrade_bytes: usize,
}

impl Opening {
    /// This batos' image, the default retention, the machine's clock.
    pub fn usual() -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { image: None, retention: Retention::default(), clock: Arc::new(clock), upgrade_bytes: MAX_BATCH / 4 }
    }
}
