//! The nats-server of `batos up`: a child process that is started again when it dies.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::process::{Child, Command};

use crate::{cli::Error, credentials::write_private};

/// How long the server has to begin to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A nats-server with JetStream on the loopback interface.
pub struct NatsServer {
    binary: PathBuf,
    config: PathBuf,
    port: u16,
    child: Child,
}

impl NatsServer {
    /// Starts a server that keeps its data under `data`. Port 0 takes a free one. A server that a killed process left
    /// behind on the same data is ended first.
    /// `users` is the part of its configuration that says who may do what.
    pub async fn start(binary: &Path, data: &Path, port: u16, users: &str) -> Result<Self, Error> {
        let port = match port {
            0 => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
            port => port,
        };
        let home = std::path::absolute(data.join("nats"))?;
        tokio::fs::create_dir_all(&home).await?;
        let config = home.join("nats.conf");
        end_leftover(&home.join("pid"), &config).await;
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            let text = "choose another with --nats-port, or use the server there with --nats";
            return Err(format!("port {port} for nats-server: {error}; {text}").into());
        }
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\npid_file: {pid:?}\njetstream {{ store_dir: {store:?} }}\n{users}",
            pid = home.join("pid"),
            store = home.join("jetstream"),
        );
        write_private(&config, text.as_bytes())?;
        let child = spawn(binary, &config)?;
        let mut server = Self { binary: binary.to_owned(), config, port, child };
        server.wait_listening().await?;
        Ok(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Completes when the server has died.
    pub async fn died(&mut self) -> Result<ExitStatus, Error> {
        Ok(self.child.wait().await?)
    }

    /// Completes when the server runs again. Not cancel safe: nobody else would hear that it does.
    pub async fn start_again(&mut self, ended: ExitStatus) -> Result<(), Error> {
        tracing::error!(%ended, "nats-server died; it is started again");
        self.child = spawn(&self.binary, &self.config)?;
        self.wait_listening().await
    }

    /// Ends the server: SIGTERM, then SIGKILL.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            signal(pid, "TERM").await;
        }
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    async fn wait_listening(&mut self) -> Result<(), Error> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.child.try_wait()? {
                let log = self.config.with_file_name("nats.log");
                return Err(
                    format!("nats-server on port {} ended with {ended}; see {}", self.port, log.display()).into()
                );
            }
            if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok() {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                return Err(format!("nats-server does not listen on port {} after {PATIENCE:?}", self.port).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn spawn(binary: &Path, config: &Path) -> Result<Child, Error> {
    let log = std::fs::File::options().create(true).append(true).open(config.with_file_name("nats.log"))?;
    Command::new(binary)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in a terminal reaches the whole group; the server must outlive the worker's last replies.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("{} cannot be started: {e}", binary.display()).into())
}

/// Ends the server of the pid file if it runs on our configuration: the pid may be somebody else's by now.
async fn end_leftover(pid_file: &Path, config: &Path) {
    let Some(pid) = std::fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return;
    };
    let is_ours = || {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
    };
    if !is_ours() {
        return;
    }
    tracing::info!(pid, "ending the nats-server that an earlier run left behind");
    for name in ["TERM", "KILL"] {
        signal(pid, name).await;
        for _ in 0..100 {
            if !is_ours() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// By the `kill` command: the standard library cannot signal other processes than children.
async fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().await;
    if !sent.is_ok_and(|status| status.success()) {
        tracing::debug!(pid, name, "signal not sent: the process is gone");
    }
}
