//! Commands on the store of a universe that is not running.

use std::path::PathBuf;

use batos_uvm::universe;
use clap::Args;

use crate::{cli::Error, image_file, store};

/// Which store.
#[derive(Args)]
struct Stopped {
    /// redb://PATH or tikv://HOST:PORT[,HOST:PORT…] [default: the redb file under --data]
    #[arg(long)]
    store: Option<String>,
    /// Folder of `batos up`
    #[arg(long, default_value = ".batos")]
    data: PathBuf,
}

impl Stopped {
    fn url(&self) -> String {
        self.store.clone().unwrap_or_else(|| store::default_url(&self.data))
    }
}

#[derive(Args)]
pub struct Import {
    /// Image that `batos export` wrote
    file: PathBuf,
    /// Name of the restored universe [default: as in the image]
    #[arg(long, short)]
    universe: Option<String>,
    #[command(flatten)]
    stopped: Stopped,
}

impl Import {
    pub async fn run(self) -> Result<(), Error> {
        // Once for its digest: nothing is written of a damaged image.
        let (name, _) = image_file::read(&self.file, |_| Ok(()))?;
        let name = self.universe.unwrap_or(name);
        let store = store::open(&self.stopped.url()).await?;
        if !universe::is_empty(store.as_ref(), &name).await? {
            return Err(format!("universe {name} is there already: an image is restored into an empty one").into());
        }
        let (pages, mut read) = tokio::sync::mpsc::channel(4);
        let file = self.file.clone();
        let reader = tokio::task::spawn_blocking(move || {
            let send = |page| pages.blocking_send(page).map_err(|_| Error::from("the store does not take more"));
            image_file::read(&file, send)
        });
        while let Some(rows) = read.recv().await {
            universe::restore(store.as_ref(), &name, rows).await?;
        }
        let (_, rows) = reader.await??;
        store.close().await?;
        println!("{rows} rows are restored as universe {name}");
        Ok(())
    }
}

#[derive(Args)]
pub struct Check {
    /// Universe to check
    #[arg(long, short, env = "BATOS_UNIVERSE", default_value = "quickstart")]
    universe: String,
    #[command(flatten)]
    stopped: Stopped,
}

impl Check {
    pub async fn run(self) -> Result<(), Error> {
        let store = store::open(&self.stopped.url()).await?;
        let checked = universe::check(store.as_ref(), &self.universe).await?;
        store.close().await?;
        checked.problems.iter().for_each(|problem| println!("{problem}"));
        match (checked.rows, checked.problems.len()) {
            (0, _) => Err(format!("there is no universe {} in this store", self.universe).into()),
            (rows, 0) => {
                println!("universe {}: {} objects in {rows} rows, all well", self.universe, checked.objects);
                Ok(())
            }
            (_, problems) => Err(format!("universe {}: {problems} problems", self.universe).into()),
        }
    }
}
