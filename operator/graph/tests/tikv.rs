//! TiKV keeps the store's contract, and its faults are told for what they are. BATOS_TIKV names the server, and
//! BATOS_TIKV_CONTROL the port of the test server that switches faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod conformance;

use std::sync::Arc;

use batos_graph::TikvStore;

async fn open() -> (conformance::Engine, ()) {
    let url = std::env::var("BATOS_TIKV").expect("BATOS_TIKV names the server: run hack/test tikv");
    (Arc::new(TikvStore::connect(&url).await.unwrap()), ())
}

conformance!(open());

/// The anomaly that the contract allows, and what to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_occurs_and_vanishes_under_locks() {
    let (store, ()) = open().await;
    assert!(conformance::write_skews(&store, 100, false).await > 0);
    assert_eq!(conformance::write_skews(&store, 100, true).await, 0);
}
