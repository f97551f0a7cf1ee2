use std::time::Duration;

use async_nats::{HeaderMap, jetstream};

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
    jetstream: Option<jetstream::Context>,
}

/// How long events can be replayed from the stream.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

impl Publisher {
    /// Makes the universe's event stream when the server has JetStream.
    pub async fn open(client: &Client, root: &str, universe: &str) -> Self {
        let context = jetstream::new(client.nats.clone());
        let config = jetstream::stream::Config {
            name: format!("{root}-{universe}-events"),
            subjects: vec![format!("{root}.v1.{universe}.evt.>")],
            max_age: RETENTION,
            max_bytes: 256 << 20,
            ..Default::default()
        };
        let jetstream = match context.get_or_create_stream(config).await {
            Ok(_) => Some(context),
            Err(error) => {
                tracing::warn!(%error, "no JetStream: events go over core NATS and cannot be replayed");
                None
            }
        };
        Self { client: client.clone(), jetstream }
    }

    /// Publishes in order; returns once the server has all of them.
    pub async fn publish(&self, events: Vec<Event>) -> Result<(), BusError> {
        let failed = |e: String| BusError::new(BusErrorKind::Publish, format!("event not published: {e}"));
        let mut acks = Vec::new();
        for event in events {
            let mut headers = HeaderMap::new();
            headers.insert(batos_covenant::MESSAGE_ID_HEADER, event.id.as_str());
            match &self.jetstream {
                Some(context) => acks.push(
                    context
                        .publish_with_headers(event.subject, headers, event.payload.into())
                        .await
                        .map_err(|e| failed(e.to_string()))?,
                ),
                None => self
                    .client
                    .nats
                    .publish_with_headers(event.subject, headers, event.payload.into())
                    .await
                    .map_err(|e| failed(e.to_string()))?,
            }
        }
        for ack in acks {
            ack.await.map_err(|e| failed(e.to_string()))?;
        }
        self.client.nats.flush().await.map_err(|e| failed(e.to_string()))
    }
}
