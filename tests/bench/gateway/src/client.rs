//! HTTP/1.1 on one connection, as little of it as the servers here need.

use std::{net::SocketAddr, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::Failure;

pub struct Client {
    stream: BufReader<TcpStream>,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// When its first piece was there.
    pub first: Instant,
}

impl Client {
    pub async fn connect(to: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer, Failure> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let status = self.line().await?.split(' ').nth(1).ok_or("no status")?.parse()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            match line.split_once(": ") {
                _ if line.is_empty() => break,
                Some(("content-length", value)) => length = value.parse()?,
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                _ => {}
            }
        }
        let (mut body, mut first) = (Vec::new(), None);
        loop {
            let piece = if chunked { usize::from_str_radix(&self.line().await?, 16)? } else { length };
            let begin = body.len();
            body.resize(begin + piece, 0);
            self.stream.read_exact(&mut body[begin..]).await?;
            first.get_or_insert_with(Instant::now);
            if !chunked {
                break;
            }
            self.line().await?;
            if piece == 0 {
                break;
            }
        }
        Ok(Answer { status, body, first: first.ok_or("no answer")? })
    }

    async fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err("the connection ended".into());
        }
        Ok(line.trim_end().to_owned())
    }
}
