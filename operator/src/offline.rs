//! Commands on the store of a universe that is not running.

use std::{path::PathBuf, sync::Arc};

use batos_graph::Store;
use batos_uvm::universe::{self, Restoring, UniverseError};
use clap::Args;
use serde_json::json;

use crate::{
    cli::{Error, Output},
    image_file::{self, Scratch},
    progress::{Progress, patiently},
    s3, store,
};

/// Which store.
#[derive(Args)]
struct Stopped {
    /// redb://PATH or tikv://HOST:PORT[,HOST:PORT…] [default: the redb file under --data]
    #[arg(long)]
    store: Option<String>,
    /// Folder of `batos up`
    #[arg(long, default_value = ".batos")]
    data: PathBuf,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

impl Stopped {
    fn url(&self) -> String {
        self.store.clone().unwrap_or_else(|| store::default_url(&self.data))
    }

    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        let url = self.url();
        let opened = patiently(&format!("opening {url}"), store::open(&url)).await;
        opened.map_err(|error| match error.to_string() {
            text if text.contains("another process") => {
                format!("{text}\n  stop its `batos up` first: this command works on a universe that does not run")
                    .into()
            }
            _ => error,
        })
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos import monday.image --data elsewhere
  batos import monday.image --universe copy --store tikv://HOST:2379
Then run it: batos up -f manifests/quickstart --data elsewhere
What is cut off is gone on with when the same image is imported once more; until then nobody opens it.")]
pub struct Import {
    /// Image that `batos export` wrote: a file, or s3://BUCKET/KEY
    file: PathBuf,
    /// Name of the restored universe [default: as in the image]
    #[arg(long, short)]
    universe: Option<String>,
    /// Names this request: when it is repeated after it was carried out it does nothing, and that is no failure
    #[arg(long, value_name = "ID")]
    once: Option<String>,
    #[command(flatten)]
    stopped: Stopped,
}

impl Import {
    pub async fn run(self) -> Result<(), Error> {
        let object = s3::Object::at(&self.file)?;
        let scratch = object.is_some().then(Scratch::new);
        let file = scratch.as_ref().map_or(self.file.as_path(), Scratch::path).to_owned();
        if let Some(object) = &object {
            object.get(&file).await?;
        }
        // Once for its digest and its version: nothing is written of a damaged image, or of a newer batos'.
        let image = image_file::read(&file, |rows| Ok(rows.iter().try_for_each(universe::admit_row)?))?;
        let (name, rows) = (self.universe.unwrap_or(image.universe), image.rows);
        let store = self.stopped.open().await?;
        let restoring = Restoring::begin(store.as_ref(), &name, &image.digest, self.once.as_deref()).await;
        let restoring = restoring.map_err(|error| match error {
            UniverseError::NotEmpty(_) => format!("{error}: name another with --universe, or another --data").into(),
            error => Error::from(error),
        })?;
        let Some(mut restoring) = restoring else {
            if !self.stopped.output.structured(&json!({ "universe": name, "rows": 0 }))? {
                println!("universe {name} was restored before, by this very request");
            }
            return Ok(store.close().await?);
        };
        let (pages, mut read) = tokio::sync::mpsc::channel(4);
        let reader = tokio::task::spawn_blocking(move || {
            let send = |page| pages.blocking_send(page).map_err(|_| Error::from("the store does not take more"));
            image_file::read(&file, send)
        });
        let (mut progress, mut done) = (Progress::new("rows are restored"), 0);
        while let Some(page) = read.recv().await {
            done += page.len() as u64;
            progress.at(done, Some(rows));
            restoring.page(page).await?;
        }
        let again = reader.await??;
        if again.digest != image.digest {
            return Err(format!("{}: it changed while it was read", self.file.display()).into());
        }
        restoring.finish().await?;
        store.close().await?;
        drop(progress);
        if !self.stopped.output.structured(&json!({ "universe": name, "rows": rows }))? {
            println!("{rows} rows are restored as universe {name}");
        }
        Ok(())
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos check
  batos check --universe quickstart --data .batos -o json
Problems go to standard output, one a line; the exit status says whether there are any.")]
pub struct Check {
    /// Universe to check
    #[arg(long, short, env = "BATOS_UNIVERSE", default_value = "quickstart")]
    universe: String,
    #[command(flatten)]
    stopped: Stopped,
}

impl Check {
    pub async fn run(self) -> Result<(), Error> {
        let store = self.stopped.open().await?;
        let mut progress = Progress::new("rows are checked");
        let checked = universe::check(store.as_ref(), &self.universe, |rows| progress.at(rows, None)).await?;
        drop(progress);
        store.close().await?;
        let told = json!({
            "universe": self.universe, "objects": checked.objects, "rows": checked.rows, "problems": checked.problems,
        });
        let structured = self.stopped.output.structured(&told)?;
        if !structured {
            checked.problems.iter().for_each(|problem| println!("{problem}"));
        }
        match (checked.rows, checked.problems.len()) {
            (0, _) => Err(format!("there is no universe {} in this store", self.universe).into()),
            (rows, 0) => {
                if !structured {
                    println!("universe {}: {} objects in {rows} rows, all well", self.universe, checked.objects);
                }
                Ok(())
            }
            (_, problems) => Err(format!("universe {}: {problems} problems", self.universe).into()),
        }
    }
}
