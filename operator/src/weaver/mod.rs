//! `batos weaver`.

mod fit;
mod serve;

use clap::Subcommand;

use crate::cli::Error;

#[derive(Subcommand)]
pub enum Weaver {
    /// Tells whether a model with slots for adapters fits a GPU, where the bytes go, and what to change if it does not
    Fit(fit::Fit),
    /// An OpenAI-compatible gateway before a pool of vLLM engines: `model` is a facet's name, and its adapter is loaded
    /// where the request goes
    Serve(serve::Serve),
}

impl Weaver {
    pub fn serves(&self) -> bool {
        matches!(self, Self::Serve(_))
    }

    pub async fn run(self) -> Result<(), Error> {
        match self {
            Self::Fit(fit) => fit.run(),
            Self::Serve(serve) => serve.run().await,
        }
    }
}
