//! Chooses the store engine by URL.

use std::{path::Path, sync::Arc};

use batos_graph::{RedbStore, Store};

use crate::cli::Error;

/// The store of `batos up` in a folder.
pub fn default_url(data: &Path) -> String {
    format!("redb://{}", data.join("universe.redb").display())
}

pub async fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    if let Some(path) = url.strip_prefix("redb://") {
        return Ok(Arc::new(RedbStore::open(Path::new(path))?));
    }
    if url.starts_with("tikv://") {
        #[cfg(feature = "tikv")]
        return Ok(Arc::new(batos_graph::TikvStore::connect(url).await?));
        #[cfg(not(feature = "tikv"))]
        return Err(format!("{url}: this batos is built without TiKV; build it with --features tikv").into());
    }
    Err(format!("{url:?} is no store: redb://PATH or tikv://HOST:PORT[,HOST:PORT…]").into())
}
