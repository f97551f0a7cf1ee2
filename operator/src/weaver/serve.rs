//! `batos weaver serve`.

use std::{net::SocketAddr, path::PathBuf};

use batos_gateway::Gateway;
use clap::Args;

use crate::{
    cli::{Error, stop_signal},
    health,
};

#[derive(Args)]
#[command(after_help = "A configuration:
  model: Qwen/Qwen2.5-3B-Instruct     # as the engines name it
  engine: { slots: 4, hostSlots: 16, maxRank: 16, seats: 128 }
                                      # --max-loras, --max-cpu-loras, --max-lora-rank, --max-num-seqs
  pods: [http://10.0.0.7:8000]        # with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1
  facets:
  - name: poet                        # what clients name as model
    path: /adapters/poet              # as the engines see it
    rank: 8
    digest: 9f86d081                  # of its content; a new version of an adapter needs another, or another path
    limits: { perMinute: 600, atOnce: 16 }
  tokens: tokens                      # lines of a sender and a bearer token; without it whoever comes may ask
  senderLimits: { perMinute: 60, atOnce: 4 }
  engineKey: key                      # what the engines want as --api-key
  queue: 1024                         # requests that may wait, and how long
  waitSeconds: 60
The file is followed: pods, facets, limits and tokens may change while it serves. An older version of an adapter that comes
back is there at once where it has not left.
Further: tries, loadsPerMinute, silenceSeconds, drainSeconds, memoryMib, engine.frontEnd (Python or Rust).
SIGTERM lets the answers that have begun, and the requests that wait, come to their end.")]
pub struct Serve {
    /// A YAML file; paths in it are relative to its folder
    #[arg(long, short)]
    config: PathBuf,
    /// Serves OpenAI's routes here
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Serves GET /readyz, /healthz and /metrics here
    #[arg(long)]
    health: Option<SocketAddr>,
}

impl Serve {
    pub async fn run(self) -> Result<(), Error> {
        let gateway = Gateway::start(&self.config, self.listen).await?;
        if let Some(address) = self.health {
            let (ready, metrics) = gateway.probes();
            tokio::spawn(async move {
                if let Err(error) = health::serve(address, ready, metrics).await {
                    tracing::error!(%address, %error, "no probe is served");
                }
            });
        }
        tracing::info!("serving on {}", gateway.address);
        stop_signal().await;
        tracing::info!("stopping: what has begun goes on");
        match gateway.stop().await {
            true => Ok(()),
            false => Err("not all answers ended within drainSeconds".into()),
        }
    }
}
