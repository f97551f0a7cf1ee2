//! What the TiKV engine makes of lost acknowledgements, silence and splits. Faults are switched on the test server
//! that BATOS_TIKV_CONTROL names, so these tests run one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, unused_macros)]
mod conformance;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use batos_graph::{Batch, Key, Put, Store, StoreError, TikvStore};
use tikv_client::{CheckLevel, Transaction, TransactionClient, TransactionOptions};

/// A fault that ends with the test.
struct Fault(&'static str);

fn switch(request: &str) {
    let control = std::env::var("BATOS_TIKV_CONTROL").expect("BATOS_TIKV_CONTROL: run hack/test tikv");
    let mut stream = TcpStream::connect(control).unwrap();
    write!(stream, "GET {request} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{request}: {answer}");
}

impl Fault {
    fn on(on: &str, off: &'static str) -> Self {
        switch(on);
        Self(off)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        switch(self.0);
    }
}

async fn open() -> TikvStore {
    TikvStore::connect(&std::env::var("BATOS_TIKV").expect("BATOS_TIKV: run hack/test tikv")).await.unwrap()
}

/// A transaction of the client alone.
async fn bare() -> Transaction {
    let server = std::env::var("BATOS_TIKV").unwrap().replace("tikv://", "");
    let client = TransactionClient::new(vec![server]).await.unwrap();
    client.begin_with_options(TransactionOptions::new_optimistic().drop_check(CheckLevel::None)).await.unwrap()
}

/// Keys far apart, so that they lie in different regions.
fn batch(case: &str, value: &str) -> Batch {
    let mut unique = [0; 8];
    getrandom::fill(&mut unique).unwrap();
    let key = |lead: u8| Key([[lead].as_slice(), case.as_bytes(), &unique].concat());
    Batch {
        marker: Key([[0x11].as_slice(), case.as_bytes(), &unique].concat()),
        marker_bytes: value.into(),
        expect: vec![],
        lock: vec![],
        put: [0x20, 0x70, 0xb0, 0xf0].map(|lead| Put { key: key(lead), bytes: value.into() }).into(),
        delete: vec![],
        passes: Default::default(),
    }
}

async fn values(store: &TikvStore, batch: &Batch) -> Vec<Option<String>> {
    let keys: Vec<Key> = batch.put.iter().map(|put| put.key.clone()).collect();
    let rows = store.read(&keys).await.unwrap();
    rows.into_iter().map(|row| row.map(|row| String::from_utf8(row.bytes).unwrap())).collect()
}

fn everywhere(value: &str) -> Vec<Option<String>> {
    vec![Some(value.to_owned()); 4]
}

#[tokio::test(flavor = "multi_thread")]
async fn faults() {
    a_lost_acknowledgement_is_settled_by_the_marker().await;
    silence_of_pd_ends_with_a_typed_error().await;
    a_commit_over_fresh_splits_is_whole().await;
    a_lock_without_its_primary_expires().await;
    a_commit_that_has_not_happened_is_tried_again().await;
    a_dead_server_is_unavailable().await;
    histories_stay_serial().await;
}

async fn a_lost_acknowledgement_is_settled_by_the_marker() {
    let store = open().await;
    let batch = batch("lost-ack", "kept");
    let fault = Fault::on("/ack?drop=1000", "/ack?drop=0");
    let committed = store.commit(batch.clone()).await.unwrap();
    assert_eq!(committed.revs.len(), 4, "the client calls this an error, and it is none");
    drop(fault);
    assert_eq!(values(&store, &batch).await, everywhere("kept"), "not torn");
    assert!(matches!(store.commit(batch).await, Err(StoreError::Conflict(_))), "and not applied twice");
}

async fn silence_of_pd_ends_with_a_typed_error() {
    let store = open().await;
    let batch = batch("silence", "late");
    let fault = Fault::on("/tso?stall=1", "/tso?stall=0");
    let begun = Instant::now();
    let error = store.commit(batch.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15), "the client alone would wait for ever");
    drop(fault);
    assert_eq!(values(&store, &batch).await, [None, None, None, None], "unavailable means nothing was written");
    store.commit(batch.clone()).await.unwrap();
    assert_eq!(values(&store, &batch).await, everywhere("late"));

    // One silence is survived, as long as the first call is given.
    let fault = Fault::on("/tso?stall=1", "/tso?stall=0");
    let mut read = tokio::spawn(async move { values(&store, &batch).await });
    assert!(tokio::time::timeout(Duration::from_millis(5200), &mut read).await.is_err(), "it is asked once more");
    drop(fault);
    assert_eq!(read.await.unwrap(), everywhere("late"));
}

async fn a_commit_over_fresh_splits_is_whole() {
    let store = open().await;
    let batch = batch("splits", "whole");
    store.commit(Batch { marker: Key(b"splits-warm".into()), ..batch.clone() }).await.ok();
    for lead in ["20", "70", "b0"] {
        // Between the key's lead byte and the rest of it, under `batos/`.
        let unique: String = batch.marker.0[7..].iter().map(|byte| format!("{byte:02x}")).collect();
        switch(&format!("/split?key=6261746f732f{lead}73{unique}"));
    }
    store.commit(batch.clone()).await.unwrap();
    assert_eq!(values(&store, &batch).await, everywhere("whole"));
}

/// Fails once the client resolves such locks itself: then `clean_up` can go.
async fn a_lock_without_its_primary_expires() {
    let store = open().await;
    let batch = batch("orphan", "never");
    let fault = Fault::on("/primary?refuse=1000", "/primary?refuse=0");
    let begun = Instant::now();
    let error = store.commit(batch.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(25), "what goes on failing is told");
    drop(fault);
    let mut transaction = bare().await;
    let left = transaction.get([b"batos/".as_slice(), &batch.put[3].key.0].concat()).await;
    assert!(format!("{left:?}").contains("txn_not_found"), "the client alone can read it now: {left:?}");
    assert_eq!(values(&store, &batch).await, [None, None, None, None]);
    store.commit(batch.clone()).await.unwrap();
    assert_eq!(values(&store, &batch).await, everywhere("never"));
}

async fn a_commit_that_has_not_happened_is_tried_again() {
    let store = open().await;
    let (batch, other) = (batch("undone", "done"), batch("other", "never"));
    // More than the client alone asks for, and less than twice as much.
    let fault = Fault::on("/primary?refuse=15", "/primary?refuse=0");
    let mut transaction = bare().await;
    transaction.put(other.marker.0, "").await.unwrap();
    assert!(transaction.commit().await.is_err(), "the client alone tries longer now");
    switch("/primary?refuse=15");
    let committed = store.commit(batch.clone()).await.unwrap();
    assert_eq!(committed.revs, [1, 1, 1, 1]);
    drop(fault);
    assert_eq!(values(&store, &batch).await, everywhere("done"));
    assert!(matches!(store.commit(batch).await, Err(StoreError::Conflict(_))), "once");
}

async fn a_dead_server_is_unavailable() {
    let begun = Instant::now();
    let Err(error) = TikvStore::connect("tikv://127.0.0.1:1").await else { panic!("connected") };
    assert!(matches!(error, StoreError::Unavailable(_)) && error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15));
}

async fn histories_stay_serial() {
    let faults = [
        ("/ack?drop=40", "/ack?drop=0"),
        ("/busy?calls=40", "/busy?calls=0"),
        ("/primary?refuse=15", "/primary?refuse=0"),
    ];
    for (on, off) in faults {
        conformance::hold_under(Arc::new(open().await), || Fault::on(on, off)).await;
    }
}
