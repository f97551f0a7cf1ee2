use std::sync::Arc;

use async_nats::{HeaderMap, Subscriber};
use batos_covenant::{AccessClass, MESSAGE_ID_HEADER, SENDER_HEADER, Subject};
use futures::StreamExt;
use tokio::sync::{Semaphore, watch};

use crate::{BusError, BusErrorKind, Client};

/// Requests that one worker carries out at the same time; more wait in the subscription's queue.
const CONCURRENCY: usize = 256;

/// A request as it came.
pub struct Request {
    pub subject: String,
    pub sender: Option<String>,
    pub id: Option<String>,
    pub payload: Vec<u8>,
}

/// Answers requests. Every request gets a reply, errors too.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Vec<u8>> + Send;
}

/// Serves the `cmd` and `adm` subjects of one universe until `stop` turns true, then finishes what has begun.
pub async fn serve(
    client: &Client,
    root: &str,
    universe: &str,
    handler: Arc<impl Handler>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), BusError> {
    let slots = Arc::new(Semaphore::new(CONCURRENCY));
    let mut subscriptions = Vec::new();
    for class in [AccessClass::Cmd, AccessClass::Adm] {
        subscriptions.push(subscribe(client, &Subject::wildcard(root, universe, class)).await?);
    }
    client.barrier().await?;
    let mut messages = futures::stream::select_all(subscriptions);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(message) = message else { break };
        let Some(reply_to) = message.reply else {
            tracing::warn!(subject = %message.subject, "request without a reply subject is ignored");
            continue;
        };
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let (handler, nats) = (handler.clone(), client.nats.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let header = |name| header(message.headers.as_ref(), name);
            let request = Request {
                subject: message.subject.to_string(),
                sender: header(SENDER_HEADER),
                id: header(MESSAGE_ID_HEADER),
                payload: message.payload.to_vec(),
            };
            let reply = handler.handle(request).await;
            if let Err(error) = nats.publish(reply_to, reply.into()).await {
                tracing::warn!(%error, "reply could not be sent; the sender will repeat");
            }
        });
    }
    drop(messages);
    // All slots free: every reply is out.
    let _ = slots.acquire_many(u32::try_from(CONCURRENCY).unwrap_or(u32::MAX)).await;
    client.nats.flush().await.map_err(|e| BusError::new(BusErrorKind::Publish, e.to_string()))
}

async fn subscribe(client: &Client, subject: &str) -> Result<Subscriber, BusError> {
    client
        .nats
        .queue_subscribe(subject.to_owned(), "workers".to_owned())
        .await
        .map_err(|e| BusError::new(BusErrorKind::Subscribe, format!("cannot subscribe to {subject}: {e}")))
}

fn header(headers: Option<&HeaderMap>, name: &str) -> Option<String> {
    headers?.get(name).map(|value| value.as_str().to_owned())
}
