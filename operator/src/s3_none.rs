//! Instead of `s3`, where batos is built without the feature `kubernetes`.

use std::path::Path;

use crate::cli::Error;

/// There is none.
pub enum Object {}

impl Object {
    pub fn at(path: &Path) -> Result<Option<Self>, Error> {
        match path.starts_with("s3:") {
            true => Err(format!("{}: buckets need a batos with the feature kubernetes", path.display()).into()),
            false => Ok(None),
        }
    }

    #[allow(clippy::unused_async, reason = "as the real one")]
    pub async fn put(&self, _: &Path) -> Result<(), Error> {
        match *self {}
    }

    #[allow(clippy::unused_async, reason = "as the real one")]
    pub async fn get(&self, _: &Path) -> Result<(), Error> {
        match *self {}
    }

    #[allow(clippy::unused_async, reason = "as the real one")]
    pub async fn thin_out(&self, _: usize) -> Result<(), Error> {
        match *self {}
    }
}
