//! `GET /readyz` for probes: 200 while ready, else 503 and what is missing. `GET /metrics` for Prometheus.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves for ever; `ready` says whether, or what is missing.
pub async fn serve(
    address: SocketAddr,
    ready: impl Fn() -> Result<(), &'static str>,
    metrics: impl Fn() -> String,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = match ready() {
            Ok(()) => ("200 OK", "ready"),
            Err(missing) => ("503 Service Unavailable", missing),
        };
        let metrics = metrics();
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream, answer, &metrics).await {
                tracing::debug!(%error, "probe");
            }
        });
    }
}

async fn serve_one(mut stream: TcpStream, ready: (&str, &str), metrics: &str) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read(&mut request)).await??;
    let request = request.get(..read).unwrap_or_default();
    let (status, kind, body) = match request {
        _ if request.starts_with(b"GET /readyz ") => (ready.0, "text/plain", ready.1),
        _ if request.starts_with(b"GET /metrics ") => ("200 OK", "text/plain; version=0.0.4", metrics),
        _ => ("404 Not Found", "text/plain", "only GET /readyz and GET /metrics"),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await
}
