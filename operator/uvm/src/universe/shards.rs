//! Which shards have something to take out, so that nobody has to look at all of them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

/// Shards that commits of this worker have filled since somebody asked.
#[derive(Default)]
pub(super) struct Shards {
    filled: Mutex<BTreeSet<u8>>,
    told: Notify,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filled {
    These(BTreeSet<u8>),
    /// The wait is over: other workers may have filled any.
    Any,
}

impl Filled {
    pub fn shards(self) -> BTreeSet<u8> {
        match self {
            Self::These(shards) => shards,
            Self::Any => (0..=u8::MAX).collect(),
        }
    }
}

impl Shards {
    pub fn fill(&self, shards: impl IntoIterator<Item = u8>) {
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let before = filled.len();
        filled.extend(shards);
        if filled.len() > before {
            self.told.notify_one();
        }
    }

    pub async fn filled(&self, at_most: Duration) -> Filled {
        let take = || std::mem::take(&mut *self.filled.lock().unwrap_or_else(PoisonError::into_inner));
        let wait = async {
            loop {
                let filled = take();
                if !filled.is_empty() {
                    return filled;
                }
                self.told.notified().await;
            }
        };
        tokio::time::timeout(at_most, wait).await.map_or(Filled::Any, Filled::These)
    }
}
