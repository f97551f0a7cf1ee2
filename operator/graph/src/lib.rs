//! The object graph as the store sees it: ids, records, keys, and the contract that both engines keep.

pub mod bucket;
mod id;
mod key;
mod past;
mod record;
mod redb_store;
mod store;
#[cfg(feature = "tikv")]
mod tikv_store;

pub use id::{ObjectId, UniverseKey};
pub use key::{Key, KeySpace, Place};
pub use past::Past;
pub use record::{Block, FORMAT, Intent, MAX_RECORD, Manifest, Payload, Record, RecordError, Slot, SlotKind, Value};
pub use redb_store::RedbStore;
pub use store::{Batch, Committed, Durable, Expect, MAX_BATCH, Put, Rev, Snapshot, Store, StoreError, Versioned};
#[cfg(feature = "tikv")]
pub use tikv_store::TikvStore;
