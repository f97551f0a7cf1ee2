//! Restoring an image: into an empty universe only, wholly or not at all for whoever opens it, once, whoever dies.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::{Arc, atomic::AtomicI64};

use batos_graph::Store;
use batos_uvm::universe::{Image, ImageRow, Restoring, UniverseError};
use common::house::{Flaky, House, apply, send};

async fn image() -> Vec<ImageRow> {
    let house = House::new();
    let universe = house.open(Image::shipped().unwrap()).await.unwrap();
    apply(&universe, "account", &[]).await;
    send(&universe, "account", "n:", vec![7.into()], None).await;
    let (at, mut rows, mut next) = universe.export(None, None).await.unwrap();
    while let Some(after) = next {
        let (_, more, mark) = universe.export(Some(at), Some(&after)).await.unwrap();
        rows.extend(more);
        next = mark;
    }
    rows
}

async fn import(store: &dyn Store, rows: &[ImageRow], once: Option<&str>) -> Result<bool, UniverseError> {
    let Some(mut restoring) = Restoring::begin(store, "u", "digest", once).await? else { return Ok(false) };
    for page in rows.chunks(100) {
        restoring.page(page.to_vec()).await?;
    }
    restoring.finish().await.map(|()| true)
}

async fn opened(house: &House) -> Result<batos_uvm::universe::Universe, UniverseError> {
    house.open(Image::shipped().unwrap()).await
}

fn refused<T>(result: Result<T, UniverseError>) -> String {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn an_interrupted_restore_is_gone_on_with_and_nobody_opens_half_of_it() {
    let rows = image().await;
    let writes = i64::try_from(rows.chunks(100).len()).unwrap() + 2;
    for survives in 0..writes {
        let house = House::new();
        let flaky = Flaky { inner: house.store.clone(), left: AtomicI64::new(survives) };
        assert!(refused(import(&flaky, &rows, None).await).contains("the power is gone"));
        if survives > 0 {
            let before = house.rows().await;
            assert!(refused(opened(&house).await).contains("has not ended"), "{survives}");
            let other = Restoring::begin(house.store.as_ref(), "u", "another", None).await;
            assert!(refused(other).contains("image digest has not ended"), "{survives}");
            assert_eq!(house.rows().await, before);
        }
        assert!(import(house.store.as_ref(), &rows, None).await.unwrap());
        assert_eq!(send(&opened(&house).await.unwrap(), "account", "n", vec![], None).await, 7, "{survives}");
    }
}

#[tokio::test]
async fn a_request_is_carried_out_once_and_others_are_refused() {
    let rows = image().await;
    let house = House::new();
    assert!(import(house.store.as_ref(), &rows, Some("first")).await.unwrap());
    let universe = opened(&house).await.unwrap();
    send(&universe, "account", "n:", vec![8.into()], None).await;
    assert!(!import(house.store.as_ref(), &rows, Some("first")).await.unwrap(), "done already");
    for once in [Some("second"), None] {
        assert!(refused(import(house.store.as_ref(), &rows, once).await).contains("is there already"), "{once:?}");
    }
    assert_eq!(send(&universe, "account", "n", vec![], None).await, 8);
    // One that was made here and not restored.
    let house = House::new();
    opened(&house).await.unwrap();
    assert!(refused(import(house.store.as_ref(), &rows, Some("first")).await).contains("is there already"));
}

#[tokio::test]
async fn whoever_was_given_up_writes_nothing_more() {
    let rows = image().await;
    let house = House::new();
    let store: Arc<dyn Store> = house.store.clone();
    let mut late = Restoring::begin(store.as_ref(), "u", "digest", Some("job")).await.unwrap().unwrap();
    late.page(rows.get(..100).unwrap().to_vec()).await.unwrap();
    assert!(import(store.as_ref(), &rows, Some("job")).await.unwrap());
    let universe = opened(&house).await.unwrap();
    send(&universe, "account", "n:", vec![8.into()], None).await;
    let before = house.rows().await;
    assert!(refused(late.page(rows.clone()).await).contains("conflict"));
    assert!(refused(late.finish().await).contains("somebody else"));
    assert_eq!(house.rows().await, before);
}
