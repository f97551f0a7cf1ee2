//! `GET /readyz` for probes: 200 while ready, else 503 and what is missing. `GET /healthz` says that the process answers,
//! `GET /metrics` what it counts.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves for ever; `ready` says whether, or what is missing, `metrics` is Prometheus' text.
pub async fn serve(
    address: SocketAddr,
    ready: impl Fn() -> Result<(), &'static str> + Send + Sync + 'static,
    metrics: impl Fn() -> String + Send + Sync + 'static,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let (ready, metrics) = (Arc::new(ready), Arc::new(metrics));
    loop {
        let (stream, _) = listener.accept().await?;
        let (ready, metrics) = (ready.clone(), metrics.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(stream, ready.as_ref(), metrics.as_ref()).await {
                tracing::debug!(%error, "probe");
            }
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    ready: &(impl Fn() -> Result<(), &'static str> + Sync),
    metrics: &(impl Fn() -> String + Sync),
) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read(&mut request)).await??;
    let asked = |line: &str| request.get(..read).is_some_and(|request| request.starts_with(line.as_bytes()));
    let (status, body) = if asked("GET /readyz ") {
        match ready() {
            Ok(()) => ("200 OK", "ready".to_owned()),
            Err(missing) => ("503 Service Unavailable", missing.to_owned()),
        }
    } else if asked("GET /healthz ") {
        ("200 OK", "alive".to_owned())
    } else if asked("GET /metrics ") {
        ("200 OK", metrics())
    } else {
        ("404 Not Found", "only GET /readyz, /healthz and /metrics".to_owned())
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await
}
