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

use std::{collections::BTreeSet, fs, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

pub use config::{Config, ConfigError, EngineConfig, Facet, FrontEnd, LimitsConfig};

use desk::Desk;
use engine::Engine;
use serve::Routes;
use tokens::Tokens;

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 8_192;
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
    /// What looks at engines and loads adapters: ends with the gateway.
    _tasks: JoinSet<()>,
}

impl Gateway {
    /// Serves on this address, whether or not an engine answers yet.
    ///
    /// # Errors
    /// A file that the configuration names, or the address, cannot be used.
    pub async fn start(config: &Config, address: SocketAddr) -> Result<Self, Error> {
        let tokens = config.tokens.as_deref().map(Tokens::read).transpose()?;
        let key = config.engine_key.as_deref().map(|file| match fs::read_to_string(file) {
            Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
            Ok(_) => Err(ConfigError::new(file, "there is no key in it")),
            Err(error) => Err(ConfigError::new(file, error)),
        });
        let key = key.transpose()?;
        let http = Engine::client()?;
        let engines = config.pods.iter().map(|url| Engine::new(http.clone(), url, key.clone())).collect();
        let listener = TcpListener::bind(address).await.map_err(|error| Error::Listen { address, error })?;
        let address = listener.local_addr().map_err(|error| Error::Listen { address, error })?;
        if tokens.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "without tokens, whoever reaches the gateway may ask");
        }
        let senders: BTreeSet<String> = tokens.iter().flat_map(Tokens::names).map(str::to_owned).collect();
        let (desk, tasks) = Desk::start(config, engines, &senders);
        let silence = Duration::from_secs(config.silence_seconds);
        let routes = Arc::new(Routes::new(desk.clone(), tokens, silence, config.memory_mib));
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, routes, stopped));
        Ok(Self { address, desk, stop, serving, drain: Duration::from_secs(config.drain_seconds), _tasks: tasks })
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
