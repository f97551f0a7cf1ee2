//! `batos operator`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use batos_controller::{Decisions, Settings};

use crate::{
    cli::{Bus, Error, stop_signal},
    health,
};

#[derive(clap::Args)]
pub struct Operator {
    #[command(flatten)]
    bus: Bus,
    /// Image of the uvm workers; its entrypoint is batos
    #[arg(long, env = "BATOS_WORKER_IMAGE")]
    worker_image: String,
    /// tikv://HOST:PORT[,HOST:PORT…] for universes that name no store; without it they get a file on a volume
    #[arg(long, env = "BATOS_DEFAULT_STORE")]
    default_store: Option<String>,
    /// Size of such a volume
    #[arg(long, default_value = "1Gi")]
    volume_size: String,
    /// Watches only this namespace; all without it
    #[arg(long, env = "BATOS_WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Seconds after which a universe is asked again what it changed itself
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    drift_check_seconds: u64,
    /// Seconds after which a universe is asked again what waits for a person
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    proposal_check_seconds: u64,
    /// People decide by ProposalDecisions: name of the policy that says who may, of its binding, and of the Secret with the
    /// signing key, which is made when there is none
    #[arg(long, value_name = "NAME")]
    decisions: Option<String>,
    /// Workers get no NetworkPolicy
    #[arg(long)]
    no_network_policies: bool,
    /// Namespace that the operator runs in
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    own_namespace: String,
    /// ServiceAccount that the operator runs under
    #[arg(long, env = "POD_ACCOUNT", default_value = "default")]
    own_account: String,
    /// How the operator calls itself in the Lease and in events
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    own_name: String,
    /// Seconds after which another operator takes over from one that is silent
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=600))]
    lease_seconds: u64,
    /// Serves GET /readyz, /healthz and /metrics here
    #[arg(long)]
    health: Option<SocketAddr>,
}

impl Operator {
    pub async fn run(self) -> Result<(), Error> {
        let ready = Arc::new(AtomicBool::new(false));
        if let Some(address) = self.health {
            let ready = ready.clone();
            tokio::spawn(async move {
                let filled = move || match ready.load(Ordering::Relaxed) {
                    true => Ok(()),
                    false => Err("caches are not filled: are the definitions installed?"),
                };
                if let Err(error) = health::serve(address, filled, || batos_controller::METRICS.render()).await {
                    tracing::error!(%address, %error, "no probe is served");
                }
            });
        }
        let settings = Settings {
            nats: self.bus.url(),
            root: self.bus.root,
            worker_image: self.worker_image,
            default_store: self.default_store.filter(|store| !store.is_empty()),
            volume_size: self.volume_size,
            namespace: self.namespace.filter(|namespace| !namespace.is_empty()),
            drift_check: Duration::from_secs(self.drift_check_seconds),
            proposal_check: Duration::from_secs(self.proposal_check_seconds),
            decisions: self.decisions.map(|name| Decisions {
                name,
                account: format!("system:serviceaccount:{}:{}", self.own_namespace, self.own_account),
            }),
            network_policies: !self.no_network_policies,
            own_namespace: self.own_namespace,
            own_name: self.own_name,
            lease: Duration::from_secs(self.lease_seconds),
        };
        Ok(batos_controller::run(settings, ready, stop_signal()).await?)
    }
}
