//! `GET /readyz` for probes: 200 while ready, else 503 and what is missing.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves for ever; `ready` says whether, or what is missing.
pub async fn serve(address: SocketAddr, ready: impl Fn() -> Result<(), &'static str>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let ready = ready();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, ready).await {
                tracing::debug!(%error, "probe");
            }
        });
    }
}

async fn answer(mut stream: TcpStream, ready: Result<(), &str>) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read(&mut request)).await??;
    let known = request.get(..read).is_some_and(|r| r.starts_with(b"GET /readyz "));
    let (status, body) = match (known, ready) {
        (false, _) => ("404 Not Found", "only GET /readyz"),
        (true, Ok(())) => ("200 OK", "ready"),
        (true, Err(missing)) => ("503 Service Unavailable", missing),
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await
}
