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
