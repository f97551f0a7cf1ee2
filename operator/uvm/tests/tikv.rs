//! A universe in TiKV. BATOS_TIKV names the server: hack/test tikv.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use batos_covenant::Wire;
use batos_graph::{KeySpace, ObjectId, Store, StoreError, TikvStore, UniverseKey};
use batos_histories::Model;
use batos_uvm::universe::{ImageRow, Restoring, Universe, UniverseError, check};
use common::{
    histories::Workers,
    universe::{answer, apply, data, send, store},
};
use tikv_client::{TransactionClient, TransactionOptions};

fn server() -> String {
    std::env::var("BATOS_TIKV").expect("BATOS_TIKV names the server: run hack/test tikv")
}

async fn tikv() -> Arc<dyn Store> {
    Arc::new(TikvStore::connect(&server()).await.unwrap())
}

/// A name that no run has used, of which `wanted` holds.
fn name(wanted: impl Fn(&str) -> bool) -> String {
    let mut unique = [0; 4];
    getrandom::fill(&mut unique).unwrap();
    let unique = u32::from_ne_bytes(unique);
    (0..).map(|n| format!("u{unique:x}-{n}")).find(|name| wanted(name)).unwrap()
}

/// Fails without the prefix on unistore, which takes such keys for rows of TiDB.
#[tokio::test(flavor = "multi_thread")]
async fn a_universe_and_objects_may_have_the_bytes_of_tidbs_rows() {
    let (store, name) = (tikv().await, name(|name| UniverseKey::of(name).0[0] == b't'));
    let universe = Universe::open(&name, store.clone()).await.unwrap();
    let rows = (0..).map(|n| format!("o{n}")).filter(|name| ObjectId::of_name(name).0[0] == b'r');
    for object in rows.take(8) {
        apply(&universe, &object, vec![data("n", 0.into())]).await.unwrap();
        let id = ObjectId::of_name(&object);
        answer(&universe, &send(id, "s", "n:", &[7.into()])).await.unwrap().unwrap();
        let read = Universe::open(&name, store.clone()).await.unwrap();
        assert_eq!(answer(&read, &send(id, "s", "n", &[])).await.unwrap().unwrap(), Wire::from(7));
    }
    assert_eq!(check(store.as_ref(), &name, |_| ()).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_universe_without_the_prefix_is_refused_until_its_image_is_imported() {
    let (store, name) = (tikv().await, name(|_| true));
    let client = TransactionClient::new(vec![server().replace("tikv://", "")]).await.unwrap();
    let mut older = client.begin_with_options(TransactionOptions::new_optimistic()).await.unwrap();
    older.put(KeySpace::new(&name).version().0, b"a row of an older batos".to_vec()).await.unwrap();
    older.commit().await.unwrap();

    let opened = Universe::open(&name, store.clone()).await.map(drop);
    for refused in [opened, check(store.as_ref(), &name, |_| ()).await.map(drop)] {
        let Err(UniverseError::Store(error @ StoreError::Older(_))) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("batos export") && error.to_string().contains("batos import"), "{error}");
    }
    assert!(
        store.scan(&KeySpace::new(&name).range().0, &KeySpace::new(&name).range().1, None, 1).await.unwrap().is_empty()
    );

    let mut restoring = Restoring::begin(store.as_ref(), &name, "image", None).await.unwrap().unwrap();
    restoring.page(image().await).await.unwrap();
    restoring.finish().await.unwrap();
    let universe = Universe::open(&name, store).await.unwrap();
    assert!(universe.lookup_name("account").await.unwrap().is_some());
}

/// The contract's snapshots, for turns lock nothing that they only read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_read_snapshots() {
    let (store, name) = (tikv().await, name(|_| true));
    let mut universes = Vec::new();
    for _ in 0..3 {
        // A client of its own each.
        universes.push(Universe::open(&name, tikv().await).await.unwrap());
    }
    Workers::new(universes).hold(Model::Snapshot).await;
    assert_eq!(check(store.as_ref(), &name, |_| ()).await.unwrap().problems, Vec::<String>::new());
}

/// All rows of a universe that has an account.
async fn image() -> Vec<ImageRow> {
    let (_folder, store) = store();
    let universe = Universe::open("u", store).await.unwrap();
    apply(&universe, "account", vec![]).await.unwrap();
    let (at, mut rows, mut next) = universe.export(None, None).await.unwrap();
    while let Some(after) = next {
        let (_, more, mark) = universe.export(Some(at), Some(&after)).await.unwrap();
        rows.extend(more);
        next = mark;
    }
    rows
}
