//! Turns of several workers at once are as if each had been alone, while what nothing reaches any more is collected.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{cell::Cell, time::Duration};

use batos_histories::Model;
use batos_uvm::universe::{Age, Retention, Universe, check};
use common::{histories::Workers, house::House};

const HOUR: u64 = 60 * 60;

/// Passes of which each is an hour after the one before.
async fn collect(house: &House, universe: &Universe, passes: usize) -> usize {
    let mut gone = 0;
    for _ in 0..passes {
        house.pass(HOUR + 1);
        while universe.keep_house().await.unwrap().rest.is_none() {}
        loop {
            let step = universe.collect(|_| Vec::new()).await.unwrap();
            gone += step.objects;
            if !step.rest.is_zero() {
                break;
            }
        }
    }
    gone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_are_serial() {
    let house = House::new();
    let hour = Age::For(Duration::from_secs(HOUR));
    let keeping = Retention { history: hour, replies: hour, unreached: hour };
    let (one, other) = (house.keeping(keeping).await, house.keeping(keeping).await);
    let workers = Workers::new(vec![one.clone(), other.clone()]);
    let gone = Cell::new(0);
    let collecting = async {
        loop {
            gone.set(gone.get() + collect(&house, &other, 1).await);
        }
    };
    tokio::select! {
        () = workers.hold(Model::Serial) => {}
        () = collecting => {}
    }
    assert!(gone.get() + collect(&house, &one, 3).await > 0);
    let checked = check(house.store.as_ref(), "u", |_| ()).await.unwrap();
    assert_eq!(checked.problems, Vec::<String>::new());
}
