//! The embedded engine keeps the store's contract, and what it acknowledged survives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod conformance;

use std::sync::Arc;

use batos_graph::{Batch, Key, Put, RedbStore, Store, StoreError};

async fn open() -> (conformance::Engine, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("universe.redb")).unwrap();
    (Arc::new(store), folder)
}

conformance!(open());

/// One after the other is validated: stricter than the contract.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_does_not_occur() {
    let (store, _folder) = open().await;
    assert_eq!(conformance::write_skews(&store, 100, false).await, 0);
}

fn batch(marker: &str, key: &str) -> Batch {
    Batch {
        marker: Key(marker.into()),
        marker_bytes: vec![],
        expect: vec![],
        lock: vec![],
        put: vec![Put { key: Key(key.into()), bytes: key.into() }],
        delete: vec![],
        passes: Default::default(),
    }
}

#[tokio::test]
async fn a_second_opener_is_told_and_the_data_is_there_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/universe.redb");
    let store = RedbStore::open(&path).unwrap();
    store.commit(batch("m", "a")).await.unwrap();
    let Err(StoreError::Unavailable(reason)) = RedbStore::open(&path) else { panic!("opened twice") };
    assert!(reason.contains("another process") && reason.contains("universe.redb"), "{reason}");
    store.close().await.unwrap();
    assert!(matches!(store.commit(batch("n", "b")).await, Err(StoreError::Unavailable(_))), "closed is closed");
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    let rows = store.read(&[Key("a".into()), Key("b".into())]).await.unwrap();
    assert!(rows[0].is_some() && rows[1].is_none());
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("universe.redb");
    std::fs::write(&path, b"no store".repeat(1000)).unwrap();
    let Err(error) = RedbStore::open(&path) else { panic!("opened") };
    assert!(error.to_string().contains("universe.redb"), "{error}");
}
