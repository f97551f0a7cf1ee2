//! The command line.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use batos_uvm::universe::{Age, Retention};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{approval, ask, client, credentials::ARCHITECT_FILE, mind, offline, repl, store, up, worker};

/// Anything that ends a command; its text is for a person.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs living object universes.
#[derive(Parser)]
#[command(version, about, after_help = "Start with: batos up -f manifests/quickstart")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything on this machine: NATS, the store and a worker for the universe that the manifests define
    Up(up::Up),
    /// A worker: runs the turns of one universe
    Uvm(Uvm),
    /// The Kubernetes operator
    #[cfg(feature = "kubernetes")]
    Operator(crate::operator::Operator),
    /// Plans manifests, shows and reaches universes of a cluster: `kubectl batos`
    #[cfg(feature = "kubernetes")]
    #[command(subcommand)]
    Kube(crate::kube::Kube),
    /// Models and LoRA adapters on GPUs
    #[cfg(feature = "weaver")]
    #[command(subcommand)]
    Weaver(crate::weaver::Weaver),
    /// Prints the custom resource definitions
    #[cfg(feature = "kubernetes")]
    Crds,
    /// Sends a message: batos send account deposit: 100
    Send(client::Send),
    /// Asks in words for what an object cannot do yet: batos ask account 'keep the last ten deposits'
    Ask(ask::Ask),
    /// Evaluates statements: batos eval 'account deposit: 100'
    Eval(client::Eval),
    /// Evaluates line after line, with history and completion
    Repl(repl::Repl),
    /// Names all objects
    List(client::List),
    /// Shows what changed in an object, the latest first
    History(client::History),
    /// Takes the last change of a slot back
    Undo(client::Undo),
    /// Shows the changes that wait for a person
    Proposals(approval::Proposals),
    /// Approves a change, signed with the Architect's key
    Approve(approval::Approve),
    /// Denies a change, signed with the Architect's key
    Deny(approval::Deny),
    /// Shows the laws that are in force: principles and rules
    Laws(approval::Laws),
    /// Shows the methods that are being made, and how far each is
    Becomings(approval::Becomings),
    /// Ends the making of a method
    Cancel(approval::Cancel),
    /// Shows where a method came from: the message or the mind, its prompt, drafts and verdicts
    Why(approval::Why),
    /// Judges the answers of a becoming again, on the objects as they were; fails when a verdict is another one
    Replay(approval::Replay),
    /// Shows what a universe is: its worker's version and image, how many objects it has
    Info(client::Info),
    /// Prints events as they come
    Watch(client::Watch),
    /// Writes the universe's image, of one moment, into a file while it runs
    Export(client::Export),
    /// Restores an image into an empty universe that is not running
    Import(offline::Import),
    /// Checks a universe that is not running: every row, name, reference, method
    Check(offline::Check),
    /// Shows an object: slots, parents, methods
    Get(client::Get),
}

/// Where the bus is.
#[derive(Args, Clone)]
pub struct Bus {
    /// NATS server [default: as .batos/architect.url says, else nats://127.0.0.1:4222]
    #[arg(long, env = "BATOS_NATS", hide_env_values = true)]
    nats: Option<String>,
    /// First token of all subjects
    #[arg(long, default_value = "batos")]
    pub root: String,
}

impl Bus {
    /// Whether somebody said where the server is.
    #[cfg(feature = "kubernetes")]
    pub fn is_given(&self) -> bool {
        self.nats.is_some()
    }

    #[cfg(feature = "kubernetes")]
    pub fn set(&mut self, url: String, root: String) {
        (self.nats, self.root) = (Some(url), root);
    }

    /// What was asked for, else the universe that runs on this folder's data, else NATS' usual place.
    pub fn url(&self) -> String {
        let local = || std::fs::read_to_string(Path::new(".batos").join(ARCHITECT_FILE)).ok();
        let url = self.nats.clone().or_else(local).unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
        url.trim().to_owned()
    }
}

#[derive(Args)]
struct Uvm {
    /// Universe that this worker runs
    #[arg(long)]
    universe: String,
    /// redb://PATH or tikv://HOST:PORT[,HOST:PORT…]
    #[arg(long)]
    store: String,
    #[command(flatten)]
    bus: Bus,
    /// What drafts missing methods: a file with spec.mind of a Universe, as YAML
    #[arg(long, value_name = "FILE")]
    mind: Option<PathBuf>,
    /// How long overwritten data stays in the history: 90s, 15m, 12h, 30d, forever; methods stay for good
    #[arg(long, default_value = "30d", value_name = "AGE")]
    keep_history: Age,
    /// How long a repeat of a message id gets the first reply; a later one is carried out again
    #[arg(long, default_value = "1d", value_name = "AGE")]
    keep_replies: Age,
    /// How long objects stay that nothing reaches from a name, a manifest or a waiting message
    #[arg(long, default_value = "1d", value_name = "AGE")]
    keep_unreached: Age,
    /// Serves GET /readyz and GET /metrics here
    #[arg(long)]
    health: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    Json,
    Yaml,
}

impl Output {
    /// Prints a value for programs, if that is wanted.
    pub fn structured(self, value: &impl serde::Serialize) -> Result<bool, Error> {
        match self {
            Self::Text => return Ok(false),
            Self::Json => println!("{}", serde_json::to_string_pretty(value)?),
            Self::Yaml => print!("{}", serde_yaml::to_string(value)?),
        }
        Ok(true)
    }
}

impl Cli {
    /// What was asked for, under the name by which kubectl knows the binary too.
    pub fn called() -> Self {
        #[cfg(feature = "kubernetes")]
        if let Some(name) = std::env::args_os().next()
            && Path::new(&name).file_name().is_some_and(|name| name == "kubectl-batos")
        {
            return Self { command: Command::Kube(crate::kube::Plugin::parse().command) };
        }
        Self::parse()
    }

    /// What runs for long logs what it does; a command tells it by its output.
    pub fn install_logging(&self) {
        let serves = match &self.command {
            Command::Up(_) | Command::Uvm(_) => true,
            #[cfg(feature = "kubernetes")]
            Command::Operator(_) => true,
            #[cfg(feature = "weaver")]
            Command::Weaver(weaver) => weaver.serves(),
            _ => false,
        };
        install_logging(if serves { "info,async_nats=warn" } else { "error" });
    }

    pub async fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Up(up) => up.run().await,
            Command::Uvm(uvm) => uvm.run().await,
            #[cfg(feature = "kubernetes")]
            Command::Operator(operator) => operator.run().await,
            #[cfg(feature = "weaver")]
            Command::Weaver(weaver) => weaver.run().await,
            #[cfg(feature = "kubernetes")]
            Command::Kube(kube) => kube.run().await,
            #[cfg(feature = "kubernetes")]
            Command::Crds => {
                print!("{}", batos_crds::crd_yaml()?);
                Ok(())
            }
            Command::Send(send) => send.run().await,
            Command::Ask(ask) => ask.run().await,
            Command::Eval(eval) => eval.run().await,
            Command::Repl(repl) => repl.run().await,
            Command::List(list) => list.run().await,
            Command::History(history) => history.run().await,
            Command::Undo(undo) => undo.run().await,
            Command::Proposals(proposals) => proposals.run().await,
            Command::Approve(approve) => approve.run().await,
            Command::Deny(deny) => deny.run().await,
            Command::Laws(laws) => laws.run().await,
            Command::Becomings(becomings) => becomings.run().await,
            Command::Cancel(cancel) => cancel.run().await,
            Command::Why(why) => why.run().await,
            Command::Replay(replay) => replay.run().await,
            Command::Watch(watch) => watch.run().await,
            Command::Info(info) => info.run().await,
            Command::Export(export) => export.run().await,
            Command::Import(import) => import.run().await,
            Command::Check(check) => check.run().await,
            Command::Get(get) => get.run().await,
        }
    }
}

impl Uvm {
    async fn run(self) -> Result<(), Error> {
        let mind = match &self.mind {
            Some(path) => {
                let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
                let text = tokio::fs::read_to_string(path).await.map_err(|e| failed(&e))?;
                batos_crds::parse_mind(&text).map_err(|e| failed(&e))?
            }
            None => None,
        };
        let mut worker = worker::Worker::start(worker::Settings {
            universe: self.universe,
            store: store::open(&self.store).await?,
            nats: self.bus.url(),
            root: self.bus.root,
            drafter: mind::drafter(mind.as_ref(), None)?,
            policy: mind::policy(mind.as_ref(), &[])?,
            retention: Retention {
                history: self.keep_history,
                replies: self.keep_replies,
                unreached: self.keep_unreached,
            },
            health: self.health,
        })
        .await?;
        tracing::info!("ready");
        let served = tokio::select! {
            () = stop_signal() => Ok(()),
            reason = worker.ended() => Err(reason),
        };
        served.and(worker.stop().await)
    }
}

/// Completes at Ctrl-C or SIGTERM.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// Logs go to standard error: as text for people, as JSON when BATOS_LOG_FORMAT=json. BATOS_LOG chooses what.
fn install_logging(usual: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BATOS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match std::env::var("BATOS_LOG_FORMAT").as_deref() {
        Ok("json") => builder.json().init(),
        _ => builder.with_target(false).init(),
    }
}
