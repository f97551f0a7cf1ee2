//! `batos up`: everything on one machine.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitStatus, time::Duration};

use batos_bus::without_login;
use batos_covenant::{ApplyCommand, ErrorKind, Reply, Wire};
use batos_crds::{PrototypeSpec, RetentionSpec, UniverseSpec};
use batos_uvm::universe::Retention;
use clap::Args;
use serde_json::json;

use crate::{
    cli::{Error, stop_signal},
    credentials::{self, ARCHITECT_FILE, Credentials},
    manifests::{self, Manifests, Stamp},
    mind,
    nats::NatsServer,
    progress::patiently,
    store,
    worker::{Settings, Worker},
};

/// How often the manifests are looked at.
const WATCH: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Up {
    /// Manifests: a folder of YAML files, or a file; may be repeated. They are watched and edits are applied
    #[arg(short = 'f', long = "filename", required = true, value_name = "DIR")]
    manifests: Vec<PathBuf>,
    /// Where objects and messages are kept
    #[arg(long, default_value = ".batos")]
    data: PathBuf,
    /// Store: redb://PATH or tikv://HOST:PORT[,HOST:PORT…] (default: a redb file under --data)
    #[arg(long)]
    store: Option<String>,
    /// Uses this NATS server instead of starting one
    #[arg(long, conflicts_with_all = ["nats_port", "nats_server"])]
    nats: Option<String>,
    /// Port of the NATS server that is started; 0 takes a free one
    #[arg(long, default_value_t = 4222)]
    nats_port: u16,
    /// nats-server to start
    #[arg(long, default_value = "nats-server", value_name = "PATH")]
    nats_server: PathBuf,
    /// First token of all subjects
    #[arg(long, default_value = "batos")]
    root: String,
    /// Writes what the model behind spec.mind.url answers into this file, for spec.mind.recorded
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Serves GET /readyz and GET /metrics here
    #[arg(long, value_name = "ADDRESS:PORT")]
    health: Option<SocketAddr>,
}

impl Up {
    pub async fn run(self) -> Result<(), Error> {
        let mut stamp = manifests::stamp(&self.manifests)?;
        let wanted = manifests::read(&self.manifests)?;
        let drafter = mind::drafter(wanted.spec.mind.as_ref(), self.record.as_deref())?;
        tokio::fs::create_dir_all(&self.data).await.map_err(|e| format!("{}: {e}", self.data.display()))?;
        let store_url = match &self.store {
            Some(url) => url.clone(),
            None => store::default_url(&self.data),
        };
        let store = patiently(&format!("opening {store_url}"), store::open(&store_url)).await?;
        let approver = credentials::approver(&self.data)?;
        let policy = mind::policy(wanted.spec.mind.as_ref(), &[approver])?;
        let (mut server, nats, url) = match &self.nats {
            Some(url) => (None, url.clone(), without_login(url)),
            None => {
                let credentials = Credentials::open(&self.data)?;
                let users = credentials.configuration(&self.root, &wanted.universe)?;
                let server = NatsServer::start(&self.nats_server, &self.data, self.nats_port, &users).await?;
                let port = server.port();
                credentials.write_architect(&self.data, port)?;
                (Some(server), credentials.system_url(port), format!("nats://127.0.0.1:{port}"))
            }
        };
        let settings = Settings {
            universe: wanted.universe.clone(),
            store,
            nats,
            root: self.root.clone(),
            drafter,
            policy,
            retention: retention(&wanted.spec)?,
            health: self.health,
        };
        let mut worker = Worker::start(settings).await?;
        let served = match apply(&worker, &wanted.prototypes).await {
            Ok(()) => {
                let ready = Ready {
                    path: self.data.join("up.json"),
                    universe: wanted.universe.clone(),
                    url,
                    store_url,
                    architect: server.is_some().then(|| self.data.join(ARCHITECT_FILE)),
                };
                self.serve(&mut worker, &mut server, &ready, wanted, &mut stamp).await
            }
            Err(error) => Err(error),
        };
        let stopped = worker.stop().await;
        if let Some(server) = server {
            server.stop().await;
        }
        served.and(stopped)
    }

    /// Until Ctrl-C or SIGTERM.
    async fn serve(
        &self,
        worker: &mut Worker,
        server: &mut Option<NatsServer>,
        ready: &Ready,
        mut applied: Manifests,
        stamp: &mut Stamp,
    ) -> Result<(), Error> {
        ready.write(server.as_ref()).await?;
        ready.greet(&applied);
        let stop = stop_signal();
        tokio::pin!(stop);
        let served = loop {
            tokio::select! {
                () = &mut stop => break Ok(()),
                reason = worker.ended() => break Err(reason),
                ended = died(server) => {
                    let again = async {
                        if let Some(server) = server {
                            server.start_again(ended?).await?;
                            ready.write(Some(server)).await?;
                        }
                        Ok(())
                    };
                    if let Err(error) = again.await {
                        break Err(error);
                    }
                }
                () = tokio::time::sleep(WATCH) => self.look(worker, stamp, &mut applied).await,
            }
        };
        let _ = tokio::fs::remove_file(&ready.path).await;
        served
    }

    /// Applies what changed in the manifests since the last look. A bad file leaves the universe as it was.
    async fn look(&self, worker: &Worker, stamp: &mut Stamp, applied: &mut Manifests) {
        let Ok(now) = manifests::stamp(&self.manifests) else { return };
        if now == *stamp {
            return;
        }
        *stamp = now;
        let wanted = match manifests::read(&self.manifests) {
            Ok(wanted) => wanted,
            Err(error) => return tracing::error!("manifests are refused, the universe goes on as it was: {error}"),
        };
        if wanted.universe != applied.universe || wanted.spec != applied.spec {
            tracing::warn!("the Universe itself changed: start again to use that");
        }
        for name in applied.prototypes.keys().filter(|name| !wanted.prototypes.contains_key(*name)) {
            tracing::warn!(name, "Prototype is gone from the manifests; the object lives on");
        }
        let changed: BTreeMap<_, _> = wanted
            .prototypes
            .iter()
            .filter(|(name, spec)| applied.prototypes.get(*name) != Some(spec))
            .map(|(name, spec)| (name.clone(), spec.clone()))
            .collect();
        match apply(worker, &changed).await {
            Ok(()) => *applied = wanted,
            Err(error) => tracing::error!("manifests are refused: {error}"),
        }
    }
}

fn retention(spec: &UniverseSpec) -> Result<Retention, Error> {
    let RetentionSpec { history, replies, unreached } = &spec.retention;
    Ok(Retention { history: history.parse()?, replies: replies.parse()?, unreached: unreached.parse()? })
}

/// Completes when a server of our own has died.
async fn died(server: &mut Option<NatsServer>) -> Result<ExitStatus, Error> {
    match server {
        Some(server) => server.died().await,
        None => std::future::pending().await,
    }
}

/// Applies definitions; one whose parents are not there yet waits for them.
async fn apply(worker: &Worker, prototypes: &BTreeMap<String, PrototypeSpec>) -> Result<(), Error> {
    let mut waiting: Vec<_> = prototypes.iter().collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut orphans = Vec::new();
        let mut missing = None;
        for (name, spec) in waiting {
            let command = ApplyCommand {
                definition: spec.definition(),
                uid: String::new(),
                generation: 0,
                term: 0,
                enforce: false,
            };
            match worker.apply(name, command).await? {
                Reply::Ok(reply) => {
                    tracing::info!(name, rev = reply.rev, "applied");
                    let drift = reply.value.get("drift").and_then(Wire::as_array).filter(|drift| !drift.is_empty());
                    if let Some(drift) = drift {
                        let slots = serde_json::Value::from(drift.clone());
                        tracing::warn!(name, %slots, "drift: the universe changed these itself; they are kept");
                    }
                }
                Reply::Error { error } if error.kind == ErrorKind::NoSuchObject => {
                    missing = Some(error);
                    orphans.push((name, spec));
                }
                Reply::Error { error } => return Err(format!("Prototype {name:?}: {}", error.message).into()),
            }
        }
        if let Some(error) = missing.filter(|_| orphans.len() == before) {
            let names: Vec<_> = orphans.iter().map(|(name, _)| name).collect();
            return Err(format!("Prototypes {names:?} lack a parent: {}", error.message).into());
        }
        waiting = orphans;
    }
    Ok(())
}

/// What says that everything is up: a file for programs, lines for people.
struct Ready {
    path: PathBuf,
    universe: String,
    url: String,
    store_url: String,
    architect: Option<PathBuf>,
}

impl Ready {
    async fn write(&self, server: Option<&NatsServer>) -> Result<(), Error> {
        let mut pids = BTreeMap::from([("batos", std::process::id())]);
        pids.extend(server.and_then(NatsServer::pid).map(|pid| ("nats-server", pid)));
        let Self { universe, url, store_url, .. } = self;
        let text = json!({ "universe": universe, "nats": url, "store": store_url, "pids": pids }).to_string();
        // By a rename, so that nobody reads half of it.
        let partial = self.path.with_extension("json.partial");
        tokio::fs::write(&partial, text).await?;
        tokio::fs::rename(&partial, &self.path).await?;
        Ok(())
    }

    fn greet(&self, manifests: &Manifests) {
        let Self { universe, url, store_url, architect, .. } = self;
        let names: Vec<&str> = manifests.prototypes.keys().map(String::as_str).collect();
        let object = names.first().unwrap_or(&"OBJECT");
        println!("universe {universe} is up: {}", names.join(", "));
        println!("  bus    {url}\n  store  {store_url}");
        if let Some(architect) = architect {
            println!("  the Architect's credentials: {}", architect.display());
        }
        println!("try in another terminal:");
        for command in [
            format!("batos get {object}"),
            format!("batos send {object} printString"),
            format!("batos send {object} slotNames"),
        ] {
            println!("  {command} --universe {universe} --nats {url}");
        }
    }
}
