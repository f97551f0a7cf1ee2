//! An OpenAI-compatible gateway in front of a pool of vLLM pods: `model` is a facet's name, and the adapter behind it is
//! where the request goes.
//!
//! `batos-weaver` decides (which request, when, to which pod, what is loaded for it); this crate does what it says.

mod answer;
mod config;
mod desk;
mod engine;
mod failure;
mod metrics;
mod serve;
mod tokens;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

pub use config::ConfigError;

use config::Config;
use desk::Desk;
use engine::Engine;
use serve::Routes;
use tokens::Tokens;

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 8_192;
/// Between two looks at the configuration.
const FOLLOW: Duration = Duration::from_secs(2);
/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// A gateway that serves.
pub struct Gateway {
    pub address: SocketAddr,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    drain: Duration,
    /// What looks at engines, loads adapters and follows the configuration: ends with the gateway.
    _tasks: JoinSet<()>,
}

impl Gateway {
    /// Serves on this address as the file says, whether or not an engine answers yet, and follows the file.
    ///
    /// # Errors
    /// The file, one that it names, or the address cannot be used.
    pub async fn start(file: &Path, address: SocketAddr) -> Result<Self, Error> {
        let source = Source::read(file)?;
        let config = &source.config;
        let key = config.engine_key.as_deref().map(|file| match fs::read_to_string(file) {
            Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
            Ok(_) => Err(ConfigError::new(file, "there is no key in it")),
            Err(error) => Err(ConfigError::new(file, error)),
        });
        let desk = Desk::new(config, Engine::client()?, key.transpose()?);
        let listener = TcpListener::bind(address).await.map_err(|error| Error::Listen { address, error })?;
        let address = listener.local_addr().map_err(|error| Error::Listen { address, error })?;
        if config.tokens.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "without tokens, whoever reaches the gateway may ask");
        }
        let silence = Duration::from_secs(config.silence_seconds);
        let routes = Arc::new(Routes::new(desk.clone(), silence, config.memory_mib));
        let drain = Duration::from_secs(config.drain_seconds);
        let mut tasks = JoinSet::new();
        source.apply(&desk, &routes, &mut tasks);
        tasks.spawn(desk.clone().tick());
        tasks.spawn(follow(file.to_owned(), source, desk.clone(), routes.clone()));
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, routes, stopped));
        Ok(Self { address, desk, stop, serving, drain, _tasks: tasks })
    }

    /// What says whether an engine answers, and what was counted.
    pub fn probes(&self) -> (impl Fn() -> Result<(), &'static str> + use<>, impl Fn() -> String + use<>) {
        let (desk, stopped, counts) = (self.desk.clone(), self.stop.subscribe(), self.desk.clone());
        let ready = move || match (*stopped.borrow(), desk.serves()) {
            (true, _) => Err("stopping"),
            (false, false) => Err("no engine answers"),
            (false, true) => Ok(()),
        };
        (ready, move || counts.metrics_text())
    }

    /// Takes no more requests, and ends when those that are there have ended; not later than the configuration says.
    /// True if all have.
    pub async fn stop(mut self) -> bool {
        self.stop.send_replace(true);
        let drained = tokio::time::timeout(self.drain, &mut self.serving).await.is_ok();
        self.serving.abort();
        drained
    }
}

/// A configuration and the tokens that it names, as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    config: Config,
    tokens: Option<Tokens>,
}

impl Source {
    fn read(file: &Path) -> Result<Self, ConfigError> {
        let config = Config::read(file)?;
        let tokens = config.tokens.as_deref().map(Tokens::read).transpose()?;
        Ok(Self { config, tokens })
    }

    fn apply(&self, desk: &Arc<Desk>, routes: &Routes, tasks: &mut JoinSet<()>) {
        let senders: BTreeSet<String> = self.tokens.iter().flat_map(Tokens::names).map(str::to_owned).collect();
        desk.configure(&self.config, &senders, tasks);
        routes.set_tokens(self.tokens.clone());
        tracing::info!(facets = self.config.facets.len(), pods = self.config.pods.len(), "configured");
    }
}

/// Applies what changes in the file, but for what is fixed at the start. A file that is wrong changes nothing.
async fn follow(file: PathBuf, mut source: Source, desk: Arc<Desk>, routes: Arc<Routes>) {
    let (mut tasks, mut wrong) = (JoinSet::new(), None);
    loop {
        tokio::time::sleep(FOLLOW).await;
        match Source::read(&file) {
            Ok(changed) if changed == source => wrong = None,
            Ok(changed) => {
                if !changed.config.starts_like(&source.config) {
                    tracing::warn!("only pods, facets, limits and tokens change without a new start");
                }
                changed.apply(&desk, &routes, &mut tasks);
                (source, wrong) = (changed, None);
            }
            Err(error) => {
                // Once for each reason.
                if wrong.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the configuration stays as it was");
                    wrong = Some(error);
                }
            }
        }
    }
}

/// Serves until it is told to stop, and then what is there to its end.
async fn serve(listener: TcpListener, routes: Arc<Routes>, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Ok(_) = stopped.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                let (routes, stopped) = (routes.clone(), stopped.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection(stream, routes, stopped).await;
                });
            }
            (_, Err(error)) => {
                // Out of file descriptors, as a rule: those that are there end.
                tracing::warn!(%error, "no connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, routes: Arc<Routes>, mut stopped: watch::Receiver<bool>) {
    // Pieces of a stream are sent as they come.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| routes.answer(request));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let told = async {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
}
