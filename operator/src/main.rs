//! The `batos` binary: it wires the crates and decides nothing.

mod approval;
mod ask;
mod cli;
mod client;
mod courier;
mod credentials;
mod health;
mod housekeeper;
mod image_file;
mod ingress;
#[cfg(feature = "kubernetes")]
mod kube;
mod manifests;
mod metrics;
mod mind;
mod nats;
mod offline;
#[cfg(feature = "kubernetes")]
mod operator;
mod progress;
mod relay;
mod repl;
#[cfg(feature = "kubernetes")]
mod s3;
#[cfg(not(feature = "kubernetes"))]
#[path = "s3_none.rs"]
mod s3;
mod store;
mod style;
mod talk;
mod up;
#[cfg(feature = "weaver")]
mod weaver;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::called();
    cli.install_logging();
    #[cfg(feature = "kubernetes")]
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("batos: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error}", style::error("batos:"));
            ExitCode::FAILURE
        }
    }
}
