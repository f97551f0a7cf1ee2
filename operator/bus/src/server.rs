use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, Message, Subscriber};
use batos_covenant::{AccessClass, MESSAGE_ID_HEADER, SENDER_HEADER, Subject};
use futures::StreamExt;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use crate::{
    BusError, BusErrorKind, Client, Crew,
    crew::{Forwarded, SUBJECT_HEADER},
};

/// Requests that one worker carries out at the same time; more wait.
const CONCURRENCY: usize = 256;
/// Requests that wait at most. NATS would drop what is not taken from it in time, and nobody would hear of it.
const WAITING: usize = 8192;
/// How long what NATS has sent may take to come in when serving ends.
const DRAIN: Duration = Duration::from_secs(2);

/// A request as it came.
pub struct Request {
    pub subject: String,
    pub sender: Option<String>,
    pub id: Option<String>,
    pub payload: Vec<u8>,
}

/// Why the bus answers a request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// So many requests wait already.
    Busy { waiting: usize },
    /// The reply has more bytes than the server takes.
    TooLarge { bytes: usize, largest: usize },
}

/// Answers requests. Every request gets a reply, errors too.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Vec<u8>> + Send;

    /// The shard whose worker has at hand what a request needs; none if any worker may as well.
    fn shard(&self, request: &Request) -> impl Future<Output = Option<u8>> + Send;

    /// The reply that tells the sender of `payload` of a refusal.
    fn refuse(&self, payload: &[u8], refusal: Refusal) -> Vec<u8>;
}

/// Serves the `cmd` and `adm` subjects of one universe until `stop` turns true, then finishes what has come. Ends when
/// the server does not let it listen. With a `crew`, what belongs to another worker goes there.
pub async fn serve(
    client: &Client,
    (root, universe): (&str, &str),
    handler: Arc<impl Handler>,
    crew: Option<Arc<Crew>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), BusError> {
    let service = Service {
        client: client.clone(),
        handler,
        crew: crew.clone(),
        slots: Arc::new(Semaphore::new(CONCURRENCY)),
        places: Arc::new(Semaphore::new(CONCURRENCY + WAITING)),
    };
    let subjects = [AccessClass::Cmd, AccessClass::Adm].map(|class| Subject::wildcard(root, universe, class));
    let mut subscriptions = Vec::new();
    for subject in &subjects {
        subscriptions.push(subscribe(client, subject).await?);
    }
    if let Some(crew) = &crew {
        subscriptions.push(crew.requests().await?);
    }
    client.barrier().await?;
    let meeting = crew.clone().map(|crew| tokio::spawn(async move { crew.meet().await }));
    let mut messages = futures::stream::select_all(subscriptions);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            refusal = client.refused(&subjects) => return Err(BusError::new(BusErrorKind::Forbidden, refusal)),
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(message) = message else { break };
        service.accept(message).await;
    }
    meeting.iter().for_each(JoinHandle::abort);
    if let Some(crew) = &crew {
        crew.leave().await;
    }
    // NATS sends what comes from now on to other workers; what it has sent here is carried out here.
    for subscription in messages.iter_mut() {
        let _ = subscription.drain().await;
    }
    let rest = async {
        while let Some(message) = messages.next().await {
            service.accept(message).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, rest).await;
    // All places free: every reply is out.
    let _ = service.places.acquire_many(u32::try_from(CONCURRENCY + WAITING).unwrap_or(u32::MAX)).await;
    client.nats.flush().await.map_err(|e| BusError::new(BusErrorKind::Publish, e.to_string()))
}

struct Service<H> {
    client: Client,
    handler: Arc<H>,
    crew: Option<Arc<Crew>>,
    slots: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl<H: Handler> Service<H> {
    /// Begins to carry out a message, or refuses it when too many wait.
    async fn accept(&self, message: Message) {
        let Some(reply_to) = message.reply.clone() else {
            tracing::warn!(subject = %message.subject, "request without a reply subject is ignored");
            return;
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.client.counters().busy.add(1);
            let reply = self.handler.refuse(&message.payload, Refusal::Busy { waiting: WAITING });
            let _ = self.client.nats.publish(reply_to, reply.into()).await;
            return;
        };
        let (handler, client, slots) = (self.handler.clone(), self.client.clone(), self.slots.clone());
        let crew = self.crew.clone();
        tokio::spawn(async move {
            let _place = place;
            let header = |name| header(message.headers.as_ref(), name);
            // Only another worker may name another subject.
            let forwarded =
                crew.as_ref().filter(|crew| crew.is_mine(&message.subject)).and_then(|_| header(SUBJECT_HEADER));
            let is_forwarded = forwarded.is_some();
            let request = Request {
                subject: forwarded.unwrap_or_else(|| message.subject.to_string()),
                sender: header(SENDER_HEADER),
                id: header(MESSAGE_ID_HEADER),
                payload: message.payload.to_vec(),
            };
            // Waiting for another worker takes no slot: two that wait for each other's would wait for ever.
            if let Some(crew) = crew.filter(|_| !is_forwarded)
                && let Some(owner) = handler.shard(&request).await.and_then(|shard| crew.owner(shard))
            {
                match crew.forward(&owner, &message).await {
                    Forwarded::NotTaken => {}
                    Forwarded::Answered(reply) => return answer(&client, reply_to, reply).await,
                    Forwarded::Lost(error) => {
                        tracing::warn!(owner, error, "another worker did not answer; the sender will repeat");
                        return;
                    }
                }
            }
            let Ok(_slot) = slots.acquire().await else { return };
            let mut reply = handler.handle(request).await;
            let largest = client.nats.server_info().max_payload;
            if reply.len() > largest {
                client.counters().unsent_replies.add(1);
                reply = handler.refuse(&message.payload, Refusal::TooLarge { bytes: reply.len(), largest });
            }
            answer(&client, reply_to, reply).await;
        });
    }
}

async fn answer(client: &Client, reply_to: async_nats::Subject, reply: Vec<u8>) {
    if let Err(error) = client.nats.publish(reply_to, reply.into()).await {
        client.counters().unsent_replies.add(1);
        tracing::warn!(%error, "reply could not be sent; the sender will repeat");
    }
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
