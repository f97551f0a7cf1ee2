//! The processes that are measured: nats-server, a worker, and what answers bare requests.

use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use batos_bench_store::Failure;
use batos_covenant::{Command, Encoding, ListCommand, encode};
use tokio::process::{Child, Command as Process};

/// How long they have to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Processes {
    pub url: String,
    children: Vec<Child>,
}

impl Processes {
    pub async fn start(folder: &Path) -> Result<Self, Failure> {
        let binary = |name: &str| env::var_os(name).ok_or(format!("{name} names no program"));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let url = format!("nats://127.0.0.1:{port}");
        let mut server = Process::new(binary("BATOS_NATS_SERVER")?);
        server.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]);
        server.arg(folder.join("jetstream"));
        let mut processes = Self { url, children: Vec::new() };
        processes.spawn(server)?;
        let begun = Instant::now();
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if begun.elapsed() > PATIENCE {
                return Err("nats-server does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut echo = Process::new(env::current_exe()?);
        echo.args(["echo", &processes.url]);
        processes.spawn(echo)?;
        let mut worker = Process::new(binary("BATOS_BIN")?);
        let store = format!("redb://{}", folder.join("universe.redb").display());
        worker.args(["uvm", "--universe", "bench", "--store", &store, "--nats", &processes.url]);
        worker.env("BATOS_LOG", "warn");
        processes.spawn(worker)?;
        Ok(processes)
    }

    fn spawn(&mut self, mut process: Process) -> Result<(), Failure> {
        let child = process.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        // nats-server tells everything there.
        let child = if self.children.is_empty() { child.stderr(Stdio::null()) } else { child };
        self.children.push(child.spawn()?);
        Ok(())
    }

    /// Waits until the worker and the echo answer.
    pub async fn wait_ready(&self, nats: &async_nats::Client, subject: &str) -> Result<(), Failure> {
        let list = encode(&Command::List(ListCommand::default()), Encoding::MessagePack)?;
        let begun = Instant::now();
        for subject in [subject, crate::ECHO] {
            while let Err(error) = nats.request(subject.to_owned(), list.clone().into()).await {
                if begun.elapsed() > PATIENCE {
                    return Err(format!("{subject}: {error}").into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Process that answers bare requests.
    pub fn echo(&self) -> Result<u32, Failure> {
        self.pid(1)
    }

    pub fn worker(&self) -> Result<u32, Failure> {
        self.pid(2)
    }

    fn pid(&self, child: usize) -> Result<u32, Failure> {
        self.children.get(child).and_then(Child::id).ok_or_else(|| "a process has ended".into())
    }

    pub async fn stop(mut self) -> Result<(), Failure> {
        for child in self.children.iter_mut().rev() {
            child.kill().await?;
        }
        Ok(())
    }
}
