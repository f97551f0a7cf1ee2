use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        context::{CreateStreamErrorKind, PublishErrorKind},
        stream::Config,
    },
};
use tokio::time::Instant;

use crate::{BusError, BusErrorKind, Client};

/// An event ready to publish.
pub struct Event {
    pub subject: String,
    /// JetStream drops a second event with the same id within its window; other readers see `rev`.
    pub id: String,
    pub payload: Vec<u8>,
}

/// Publishes events: through JetStream, with its acknowledgement, when the server has it; over core NATS else.
pub struct Publisher {
    client: Client,
    context: jetstream::Context,
    stream: Config,
    way: Way,
    /// Connections made again before `way` was found.
    reconnects: u64,
}

/// How events go.
enum Way {
    /// Not known yet, or the stream is gone.
    Unsettled,
    JetStream,
    /// The server has no JetStream, or not for us. It is asked again at this time.
    Core {
        again: Instant,
    },
}

/// How long events can be replayed from the stream.
const RETENTION: Duration = Duration::from_secs(24 * 3600);
/// How often a server without JetStream is asked again.
const AGAIN: Duration = Duration::from_secs(15);

impl Publisher {
    pub fn new(client: &Client, root: &str, universe: &str) -> Self {
        let stream = Config {
            name: format!("{root}-{universe}-events"),
            subjects: vec![format!("{root}.v1.{universe}.evt.>")],
            max_age: RETENTION,
            max_bytes: 256 << 20,
            ..Default::default()
        };
        Self {
            client: client.clone(),
            context: jetstream::new(client.nats.clone()),
            stream,
            way: Way::Unsettled,
            reconnects: 0,
        }
    }

    /// Makes the universe's event stream when the server has JetStream. An error says that this is not known now.
    pub async fn settle(&mut self) -> Result<(), BusError> {
        let reconnects = self.client.counters().reconnects.get();
        match self.way {
            Way::JetStream => return Ok(()),
            Way::Core { again } if Instant::now() < again && self.reconnects == reconnects => return Ok(()),
            Way::Core { .. } | Way::Unsettled => {}
        }
        self.reconnects = reconnects;
        let was_core = matches!(self.way, Way::Core { .. });
        let Err(error) = self.context.get_or_create_stream(self.stream.clone()).await else {
            if was_core {
                tracing::info!("JetStream is there: events can be replayed from now on");
            }
            self.way = Way::JetStream;
            return Ok(());
        };
        // Without an answer it is not known whether there is JetStream, unless the server does not let us ask.
        let asked = match error.kind() {
            CreateStreamErrorKind::TimedOut | CreateStreamErrorKind::Response => self.client.is_refused("$JS.API."),
            _ => self.client.is_connected(),
        };
        if !asked {
            return Err(BusError::new(BusErrorKind::Publish, format!("JetStream does not answer: {error}")));
        }
        if !was_core {
            tracing::warn!(%error, "no JetStream: events go over core NATS and cannot be replayed until it is there");
        }
        self.way = Way::Core { again: Instant::now() + AGAIN };
        Ok(())
    }

    /// Publishes in order; returns once the server has all of them.
    pub async fn publish(&mut self, events: Vec<Event>) -> Result<(), BusError> {
        let count = events.len() as u64;
        let done = self.try_publish(events).await;
        let counters = self.client.counters();
        match &done {
            Ok(()) => counters.published_events.add(count),
            Err(_) => counters.publish_failures.add(1),
        }
        done
    }

    async fn try_publish(&mut self, events: Vec<Event>) -> Result<(), BusError> {
        let failed = |e: String| BusError::new(BusErrorKind::Publish, format!("event not published: {e}"));
        self.settle().await?;
        if !self.client.is_connected() {
            return Err(failed("not connected to NATS".to_owned()));
        }
        let largest = self.client.nats.server_info().max_payload;
        let mut acks = Vec::new();
        for event in events {
            let mut headers = HeaderMap::new();
            headers.insert(batos_covenant::MESSAGE_ID_HEADER, event.id.as_str());
            // The headers count too.
            if event.payload.len() + event.id.len() + 64 > largest {
                let bytes = event.payload.len();
                tracing::error!(subject = event.subject, bytes, largest, "an event is too large for the server: lost");
                self.client.counters().oversized_events.add(1);
                continue;
            }
            match self.way {
                Way::JetStream => acks.push(
                    self.context
                        .publish_with_headers(event.subject, headers, event.payload.into())
                        .await
                        .map_err(|e| failed(e.to_string()))?,
                ),
                _ => self
                    .client
                    .nats
                    .publish_with_headers(event.subject, headers, event.payload.into())
                    .await
                    .map_err(|e| failed(e.to_string()))?,
            }
        }
        if acks.is_empty() {
            // A flush waits for the socket alone: what a server that dies now has not read would be lost. A refusal comes
            // beside it, so the first events may be lost before it is known.
            self.client.barrier().await?;
            return match self.client.is_refused(".evt.") {
                true => Err(BusError::new(BusErrorKind::Forbidden, "NATS does not let this worker publish events")),
                false => Ok(()),
            };
        }
        for ack in acks {
            if let Err(error) = ack.await {
                if matches!(error.kind(), PublishErrorKind::StreamNotFound) {
                    tracing::warn!("the event stream is gone; it is made again");
                    self.way = Way::Unsettled;
                }
                return Err(failed(error.to_string()));
            }
        }
        Ok(())
    }
}
