//! A universe on one worker: turns run on cached records and are validated against the store at every exit.

mod apply;
mod authority;
mod buckets;
mod collection;
mod commit;
mod error;
mod export;
mod history;
mod merge;
mod opening;
mod outbox;
mod patch;
mod posts;
mod remove;
mod render;
mod restoring;
mod retention;
mod shards;
mod sharing;
mod similar;
mod state;
mod sweep;
mod turns;
mod upgrade;
mod version;
mod view;
mod witness;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use batos_graph::{KeySpace, ObjectId, Store};

pub use apply::TRAITS_PREFIX;
pub use authority::Authority;
pub use collection::{Collected, JobTargets};
pub use commit::Changes;
pub use error::UniverseError;
pub use export::{Checked, ImageRow, check, is_object};
pub use opening::{Clock, Image, Opening};
pub use outbox::{OUTBOX_PAGE, OutboxEvent};
pub use patch::{Patch, Patched};
pub use posts::{Envelope, Waiting, now};
pub use restoring::Restoring;
pub use retention::{Age, Retention};
pub use shards::Filled;
pub use sweep::Swept;
pub use turns::{Delivery, MAX_REPLY, Message, Outcome, Unanswered, Work};
pub use version::{BatosVersion, UNIVERSE_FORMAT, admit_row};
pub use view::{Ended, View};
pub use witness::{Seen, Witness};

use export::is_empty;
use shards::Shards;
use sharing::Lane;
use view::Cache;

/// A cheap, cloneable handle.
#[derive(Clone)]
pub struct Universe {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    keys: KeySpace,
    store: Arc<dyn Store>,
    cache: Cache,
    /// Messages to the objects of one shard run one after the other on this worker, so that a hot object does not make
    /// its own messages conflict. Correctness rests on the commit alone.
    lanes: Vec<Lane>,
    /// Who looks on.
    witness: OnceLock<Arc<dyn Witness>>,
    /// Turns that had to run again because what they had read was stale.
    conflicts: AtomicU64,
    /// Where commits left something for the relay.
    outbox: outbox::Filled,
    /// Where commits left messages and timers.
    posts: Shards,
    /// Digest of the image that this worker's turns rest on.
    image: [u8; 32],
    retention: Retention,
    clock: Clock,
    upgrade_bytes: usize,
    /// Whether it is known that who refers to whom is known.
    indexed: AtomicBool,
}

impl Universe {
    /// Opens the universe; makes the primordial image in an empty store, and brings an older one up to date. Refuses the
    /// universe of a newer batos before anything is written.
    pub async fn open(name: &str, store: Arc<dyn Store>) -> Result<Self, UniverseError> {
        Self::open_with(name, store, Opening::usual()).await
    }

    pub async fn open_with(name: &str, store: Arc<dyn Store>, opening: Opening) -> Result<Self, UniverseError> {
        let Opening { image, retention, clock, upgrade_bytes } = opening;
        let universe = Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                keys: KeySpace::new(name),
                store,
                cache: Cache::default(),
                lanes: (0..256).map(|_| Lane::default()).collect(),
                witness: OnceLock::new(),
                conflicts: AtomicU64::new(0),
                outbox: outbox::Filled::default(),
                posts: Shards::default(),
                image: image.as_ref().map_or_else(|| Ok(crate::image::digest()), Image::digest)?,
                retention,
                clock,
                upgrade_bytes,
                indexed: AtomicBool::new(false),
            }),
        };
        universe.bring_up_to_date(image).await?;
        Ok(universe)
    }

    /// Seconds since 1970 by this worker's clock.
    pub fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How often turns had to run again because what they had read was stale.
    pub fn conflicts(&self) -> u64 {
        self.inner.conflicts.load(Ordering::Relaxed)
    }

    pub fn keys(&self) -> KeySpace {
        self.inner.keys
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// Resolves an id or a name, as it stands in a subject.
    pub async fn resolve(&self, object: &str) -> Result<ObjectId, UniverseError> {
        if let Ok(id) = object.parse() {
            return Ok(id);
        }
        self.lookup_name(object).await?.ok_or_else(|| UniverseError::NoSuchObject(object.to_owned()))
    }

    /// The object that has this name in the universe's directory.
    pub async fn lookup_name(&self, name: &str) -> Result<Option<ObjectId>, UniverseError> {
        self.inner.cache.name(name, &self.inner.store, self.inner.keys).await
    }
}
