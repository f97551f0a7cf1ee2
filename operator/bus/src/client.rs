use std::time::Duration;

use async_nats::{ConnectOptions, HeaderMap, RequestErrorKind};
use batos_covenant::{Command, Encoding, MESSAGE_ID_HEADER, Reply, SENDER_HEADER, Subject, decode, encode};
use futures::StreamExt;

use crate::{BusError, BusErrorKind};

/// How long the server has to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// A cheap, cloneable handle over one NATS connection that reconnects by itself.
#[derive(Clone)]
pub struct Client {
    pub(crate) nats: async_nats::Client,
}

impl Client {
    /// Connects once; fails when the server cannot be reached within five seconds.
    pub async fn connect(url: &str) -> Result<Self, BusError> {
        let nats = ConnectOptions::new()
            .name("batos")
            .connection_timeout(CONNECT)
            .event_callback(|event| async move { tracing::debug!(%event, "nats") })
            .connect(url)
            .await
            .map_err(|e| BusError::new(BusErrorKind::Connect, format!("cannot connect to NATS at {url}: {e}")))?;
        Ok(Self { nats })
    }

    /// Sends a command and waits ten seconds for its reply. With an `id` it may be repeated safely.
    pub async fn request(&self, subject: &Subject, command: &Command, id: Option<&str>) -> Result<Reply, BusError> {
        let payload =
            encode(command, Encoding::MessagePack).map_err(|e| BusError::new(BusErrorKind::Encoding, e.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(SENDER_HEADER, "batos");
        if let Some(id) = id {
            headers.insert(MESSAGE_ID_HEADER, id);
        }
        let message =
            self.nats.request_with_headers(subject.to_string(), headers, payload.into()).await.map_err(|e| match e
                .kind()
            {
                RequestErrorKind::NoResponders => BusError::new(
                    BusErrorKind::NoResponders,
                    format!("nobody serves {subject}: is universe {:?} up?", subject.universe),
                ),
                RequestErrorKind::TimedOut => BusError::new(
                    BusErrorKind::TimedOut,
                    format!("no reply on {subject} in time; repeat it with the same id"),
                ),
                _ => BusError::new(BusErrorKind::Publish, format!("request to {subject} failed: {e}")),
            })?;
        let (reply, _) = decode(&message.payload)
            .map_err(|e| BusError::new(BusErrorKind::Encoding, format!("reply on {subject}: {e}")))?;
        Ok(reply)
    }

    /// Completes when the server has handled all that was sent before. A flush alone only waits for the socket.
    pub(crate) async fn barrier(&self) -> Result<(), BusError> {
        let failed = |e: String| BusError::new(BusErrorKind::Subscribe, format!("no answer from NATS: {e}"));
        let inbox = self.nats.new_inbox();
        let mut echo = self.nats.subscribe(inbox.clone()).await.map_err(|e| failed(e.to_string()))?;
        self.nats.publish(inbox, "".into()).await.map_err(|e| failed(e.to_string()))?;
        match tokio::time::timeout(CONNECT, echo.next()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(failed("connection closed".to_owned())),
            Err(_) => Err(failed(format!("nothing within {CONNECT:?}"))),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.nats.connection_state() == async_nats::connection::State::Connected
    }
}
