//! What may open a universe: a row that every batos reads before anything else.

use batos_covenant::{Encoding, decode, encode};
use batos_graph::{Key, KeySpace, Place, RecordError, Store};
use serde::{Deserialize, Serialize};

use super::{ImageRow, Universe, UniverseError, export::place};

/// Format of a universe's rows beside objects, whose records have one of their own. Counts up when an older batos would
/// misread or damage what this one writes.
pub const UNIVERSE_FORMAT: u32 = 2;

/// Major, minor and patch number of a batos.
pub type BatosVersion = [u64; 3];

/// The batos that this is.
pub(super) fn this_batos() -> BatosVersion {
    let number = |text: &str| text.parse().unwrap_or(0);
    [
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    ]
}

pub(super) fn spelled([major, minor, patch]: BatosVersion) -> String {
    format!("{major}.{minor}.{patch}")
}

/// The row. Fields may be added; those that are there keep their meaning, so that every batos can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub format: u32,
    /// Newest format of records that may be there.
    pub records: u8,
    /// Who wrote this row.
    pub batos: BatosVersion,
    /// Digest of the image that the universe has; another while an upgrade is under way.
    #[serde(with = "serde_bytes")]
    pub image: Vec<u8>,
    /// What the universe was restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// A restore, and whether all of the image is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restore {
    /// Digest of the image.
    pub image: String,
    /// Who asked for it, so that it is done once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<String>,
    pub done: bool,
}

impl Version {
    pub fn encode(&self) -> Result<Vec<u8>, UniverseError> {
        encode(self, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, UniverseError> {
        let decoded = decode(bytes).map_err(|e| UniverseError::Internal(format!("the universe's version: {e}")))?;
        Ok(decoded.0)
    }

    /// Refuses half an image, and what a newer batos wrote in a format that this one does not know.
    pub fn admit(&self) -> Result<(), UniverseError> {
        if let Some(restore) = self.restore.as_ref().filter(|restore| !restore.done) {
            return Err(UniverseError::Unrestored(restore.image.clone()));
        }
        let newer = |what: &str, found: u64, known: u64| {
            Err(UniverseError::Newer {
                found: format!("{what} format {found}, which is newer than {known}"),
                needs: spelled(self.batos),
                this: spelled(this_batos()),
            })
        };
        if self.format > UNIVERSE_FORMAT {
            return newer("universe", self.format.into(), UNIVERSE_FORMAT.into());
        }
        if self.records > batos_graph::FORMAT {
            return newer("record", self.records.into(), batos_graph::FORMAT.into());
        }
        Ok(())
    }
}

/// The version of a universe with its revision; `None` where none was written yet.
pub(super) async fn load(store: &dyn Store, key: Key) -> Result<Option<(u64, Version)>, UniverseError> {
    let rows = store.read(&[key]).await.map_err(UniverseError::Store)?;
    rows.into_iter().next().flatten().map(|row| Ok((row.rev, Version::decode(&row.bytes)?))).transpose()
}

/// The version of a universe that this batos may open, or that is not there yet.
pub(super) async fn admitted(store: &dyn Store, keys: KeySpace) -> Result<Option<(u64, Version)>, UniverseError> {
    let found = load(store, keys.version()).await?;
    match &found {
        Some((_, version)) => version.admit()?,
        None => {
            let (start, end) = keys.range();
            store.admit(&start, &end).await.map_err(UniverseError::Store)?;
        }
    }
    Ok(found)
}

/// Refuses a row of a newer batos, before anything of its image is written.
pub fn admit_row(row: &ImageRow) -> Result<(), UniverseError> {
    let object = match place(row) {
        Some(Place::Version) => return Version::decode(&row.value)?.admit(),
        Some(Place::Head(id) | Place::Shipped(id)) => id,
        _ => return Ok(()),
    };
    match row.value.first() {
        Some(&format) if format > batos_graph::FORMAT => {
            Err(UniverseError::Record { object, source: RecordError::Newer(format) })
        }
        _ => Ok(()),
    }
}

impl Universe {
    /// Fails once another batos has given the universe another image or format: this worker must end.
    pub async fn confirm_version(&self) -> Result<(), UniverseError> {
        let inner = &self.inner;
        match load(inner.store.as_ref(), inner.keys.version()).await? {
            Some((_, version)) => {
                version.admit()?;
                match version.image == inner.image {
                    true => Ok(()),
                    false => Err(UniverseError::Newer {
                        found: "another image".to_owned(),
                        needs: spelled(version.batos),
                        this: spelled(this_batos()),
                    }),
                }
            }
            None => Err(UniverseError::Internal("the universe's version is gone".to_owned())),
        }
    }
}
