//! A worker: it serves a universe on the bus until it is told to stop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use batos_bus::{BusError, Client, Crew, Handler, Publisher, Request};
use batos_covenant::{AccessClass, ApplyCommand, Command, Encoding, Reply, Subject, decode, encode};
use batos_graph::Store;
use batos_mind::{Drafter, Mind, Policy};
use batos_uvm::universe::{Opening, Retention, Universe, UniverseError};
use tokio::{sync::watch, task::JoinHandle};

use crate::{cli::Error, courier, health, housekeeper, ingress::Ingress, relay::Relay};

pub struct Settings {
    pub universe: String,
    pub store: Arc<dyn Store>,
    pub nats: String,
    pub root: String,
    pub drafter: Arc<dyn Drafter>,
    pub policy: Policy,
    pub retention: Retention,
    pub health: Option<SocketAddr>,
}

/// How long the last events may take to be published.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running worker.
pub struct Worker {
    ingress: Arc<Ingress>,
    store: Arc<dyn Store>,
    /// Until it has ended.
    serving: Option<JoinHandle<Result<(), BusError>>>,
    relay: (JoinHandle<()>, watch::Sender<bool>),
    /// Answers when another batos has taken the universe over.
    housekeeper: JoinHandle<UniverseError>,
    helpers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Worker {
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let Settings { universe: name, store, nats, root, drafter, policy, retention, health: probe } = settings;
        let opening = Opening { retention, ..Opening::usual() };
        let universe = Universe::open_with(&name, store.clone(), opening).await?;
        let mind = Mind::new(universe.clone(), drafter, policy);
        let bus = Client::connect(&nats).await?;
        let mut publisher = Publisher::new(&bus, &root, &name);
        if let Err(error) = publisher.settle().await {
            tracing::warn!(%error, "events wait in the outbox");
        }
        mind.amend().await?;
        let resumed = mind.resume().await?;
        tracing::info!(universe = name, resumed, "universe is open");

        let (tending, mending) = (mind.clone(), mind.clone());
        let ingress = Arc::new(Ingress { universe: universe.clone(), mind, metrics: Arc::default() });
        let metrics = ingress.metrics.clone();
        let (stop, stopped) = watch::channel(false);
        let (stop_relay, relay_stopped) = watch::channel(false);
        // A store in a file has one worker.
        let crew = (!store.pipelines()).then(|| Crew::new(&bus, &root, &name, ingress.mind.worker()));
        let serving = tokio::spawn({
            let (bus, root, ingress, crew) = (bus.clone(), root.clone(), ingress.clone(), crew.clone());
            async move { batos_bus::serve(&bus, (&root, &name), ingress, crew, stopped).await }
        });
        let housekeeper = tokio::spawn(housekeeper::run(universe.clone()));
        let relay = tokio::spawn(Relay::new(universe.clone(), publisher, root, metrics.clone()).run(relay_stopped));
        let mut helpers = vec![
            tokio::spawn(courier::run(ingress.clone())),
            tokio::spawn(tending.tend()),
            tokio::spawn(mending.mend()),
        ];
        if let Some(address) = probe {
            helpers.push(tokio::spawn(async move {
                let connected = {
                    let bus = bus.clone();
                    move || bus.is_connected().then_some(()).ok_or("not connected to NATS")
                };
                let text = move || metrics.text(&bus, universe.conflicts(), crew.as_deref());
                if let Err(error) = health::serve(address, connected, text).await {
                    tracing::error!(%address, %error, "no probe is served");
                }
            }));
        }
        Ok(Self { ingress, store, serving: Some(serving), relay: (relay, stop_relay), housekeeper, helpers, stop })
    }

    /// Applies a definition as the operator would.
    pub async fn apply(&self, name: &str, apply: ApplyCommand) -> Result<Reply, Error> {
        let command = Command::Apply(apply);
        let payload = encode(&command, Encoding::Json)?;
        let subject = Subject::new("local", self.ingress.universe.name(), AccessClass::Adm, name, "apply")?;
        let request = Request { subject: subject.to_string(), sender: None, id: None, payload };
        Ok(decode(&self.ingress.handle(request).await)?.0)
    }

    /// Completes when the worker cannot serve any more, with the reason. Cancel safe.
    pub async fn ended(&mut self) -> Error {
        let Some(serving) = &mut self.serving else { return std::future::pending().await };
        tokio::select! {
            ended = serving => {
                self.serving = None;
                format!("serving ended: {ended:?}").into()
            }
            broken = self.store.broken() => broken.into(),
            superseded = &mut self.housekeeper => match superseded {
                Ok(reason) => reason.into(),
                Err(error) => format!("housekeeping ended: {error}").into(),
            },
        }
    }

    /// Finishes what has begun and closes the store.
    pub async fn stop(self) -> Result<(), Error> {
        tracing::info!("stopping: finishing what has begun");
        let _ = self.stop.send(true);
        if let Some(serving) = self.serving {
            serving.await??;
        }
        self.housekeeper.abort();
        // After the last turn, so that its events go out. What cannot go now waits in the outbox.
        let (mut relay, stop) = self.relay;
        let _ = stop.send(true);
        if tokio::time::timeout(FAREWELL, &mut relay).await.is_err() {
            tracing::warn!("events wait in the outbox for the next start");
            relay.abort();
        }
        self.helpers.iter().for_each(JoinHandle::abort);
        self.store.close().await?;
        Ok(())
    }
}
