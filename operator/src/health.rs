//! `GET /readyz` for probes: 200 while the worker serves and the bus is connected.

use std::net::SocketAddr;

use batos_bus::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub async fn serve(address: SocketAddr, bus: Client) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let ready = bus.is_connected();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, ready).await {
                tracing::debug!(%error, "probe");
            }
        });
    }
}

async fn answer(mut stream: TcpStream, ready: bool) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read(&mut request)).await??;
    let known = request.get(..read).is_some_and(|r| r.starts_with(b"GET /readyz "));
    let status = match (known, ready) {
        (false, _) => "404 Not Found",
        (true, true) => "200 OK",
        (true, false) => "503 Service Unavailable",
    };
    let body = if ready { "ready\n" } else { "not connected to NATS\n" };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await
}
