use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{ConnectOptions, Event, HeaderMap, RequestErrorKind};
use batos_covenant::{Command, Encoding, MESSAGE_ID_HEADER, Reply, SENDER_HEADER, Subject, decode, encode};
use futures::{Stream, StreamExt};
use tokio::sync::{Notify, watch};

use crate::{BusError, BusErrorKind, Counters};

/// Inboxes of a user that logs in begin with this and the user's name; those of anonymous ones with `_INBOX`.
pub const INBOX_PREFIX: &str = "_INBOX_";

/// User and password of `nats://USER:PASSWORD@HOST:PORT`.
fn login(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("://")?;
    let (login, _) = rest.rsplit_once('@')?;
    login.split_once(':')
}

/// The URL as logs may show it.
pub fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// How long the server has to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// Tells of what happens to a connection: nothing of it shows at a call.
fn note(
    event: &Event,
    counters: &Counters,
    refusals: &watch::Sender<Option<String>>,
    lame_duck: &Notify,
    lost: &AtomicBool,
) {
    match event {
        Event::ServerError(error) if error.to_string().to_lowercase().contains("permissions violation") => {
            tracing::warn!(%error, "NATS refuses");
            counters.refusals.add(1);
            let _ = refusals.send(Some(error.to_string()));
        }
        Event::ServerError(error) => tracing::warn!(%error, "NATS"),
        Event::ClientError(error) => tracing::warn!(%error, "NATS client"),
        Event::Disconnected => {
            tracing::warn!("NATS is lost; connecting again");
            lost.store(true, Ordering::Relaxed);
        }
        // The first is no news.
        Event::Connected if lost.swap(false, Ordering::Relaxed) => {
            // Another server, or another configuration.
            let _ = refusals.send(None);
            tracing::info!("NATS is connected again");
            counters.reconnects.add(1);
        }
        Event::Connected => {}
        Event::SlowConsumer(_) => {
            // One line for the first; the counter has all. A log of each would be a flood of its own.
            if counters.slow_consumers.get() == 0 {
                tracing::warn!(
                    "messages come faster than they are taken: NATS drops some, and their senders hear nothing"
                );
            }
            counters.slow_consumers.add(1);
        }
        Event::LameDuckMode => {
            counters.lame_ducks.add(1);
            lame_duck.notify_one();
        }
        Event::Draining | Event::Closed => tracing::debug!(%event, "NATS"),
    }
}

/// A server that will shut down lets its clients stay for a while, but takes no new ones. With others to go to, now is
/// better; the only one is kept until it goes, for so long it serves.
async fn leave(nats: &async_nats::Client) {
    let info = nats.server_info();
    let here = format!(":{}", info.port);
    let elsewhere = info.connect_urls.iter().any(|url| !url.ends_with(&here));
    tracing::warn!(elsewhere, "the NATS server is about to shut down");
    if elsewhere && let Err(error) = nats.force_reconnect().await {
        tracing::warn!(%error, "cannot leave the NATS server");
    }
}

/// A cheap, cloneable handle over one NATS connection that reconnects by itself.
#[derive(Clone)]
pub struct Client {
    pub(crate) nats: async_nats::Client,
    /// The last permission that the server refused.
    refused: watch::Receiver<Option<String>>,
    counters: Arc<Counters>,
}

impl Client {
    /// Connects once; fails when the server cannot be reached within five seconds.
    pub async fn connect(url: &str) -> Result<Self, BusError> {
        let (refusals, refused) = watch::channel(None);
        let counters = Arc::new(Counters::default());
        let lame_duck = Arc::new(Notify::new());
        let mut options = ConnectOptions::new();
        // Each user has inboxes of its own, so that no other can read its replies.
        if let Some((user, password)) = login(url) {
            options = options
                .user_and_password(user.to_owned(), password.to_owned())
                .custom_inbox_prefix(format!("{INBOX_PREFIX}{user}"));
        }
        let nats = options
            .name("batos")
            .connection_timeout(CONNECT)
            .event_callback({
                let (counters, lame_duck, lost) = (counters.clone(), lame_duck.clone(), AtomicBool::new(false));
                move |event| {
                    note(&event, &counters, &refusals, &lame_duck, &lost);
                    async {}
                }
            })
            .connect(without_login(url))
            .await
            .map_err(|e| {
                BusError::new(BusErrorKind::Connect, format!("cannot connect to NATS at {}: {e}", without_login(url)))
            })?;
        let leaving = nats.clone();
        tokio::spawn(async move {
            loop {
                lame_duck.notified().await;
                leave(&leaving).await;
            }
        });
        Ok(Self { nats, refused, counters })
    }

    /// What went wrong so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Completes when the server refuses to let this client use one of the subjects, with its words.
    pub(crate) async fn refused(&self, subjects: &[String]) -> String {
        let mut refused = self.refused.clone();
        let ours = |refusal: &Option<String>| {
            refusal.as_ref().is_some_and(|refusal| subjects.iter().any(|subject| refusal.contains(subject)))
        };
        match refused.wait_for(ours).await.ok().and_then(|refusal| refusal.clone()) {
            Some(refusal) => refusal,
            None => std::future::pending().await,
        }
    }

    /// Whether the server's last refusal was about subjects that begin so.
    pub(crate) fn is_refused(&self, subject: &str) -> bool {
        self.refused.borrow().as_ref().is_some_and(|refusal| refusal.contains(subject))
    }

    /// Sends a command and waits for its reply, ten seconds at a time: the worker that had it may be no more, so it is sent
    /// a second time, under the same id.
    pub async fn request(&self, subject: &Subject, command: &Command, id: Option<&str>) -> Result<Reply, BusError> {
        let payload =
            encode(command, Encoding::MessagePack).map_err(|e| BusError::new(BusErrorKind::Encoding, e.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(SENDER_HEADER, "batos");
        // An inbox is named by its prefix and what nobody else has.
        let inbox = self.nats.new_inbox();
        headers.insert(MESSAGE_ID_HEADER, id.or(inbox.rsplit('.').next()).unwrap_or(&inbox));
        let mut refused = self.refused.clone();
        refused.mark_unchanged();
        let refusal = async {
            loop {
                if refused.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if let Some(refusal) = refused.borrow_and_update().clone() {
                    break refusal;
                }
            }
        };
        let ask = || self.nats.request_with_headers(subject.to_string(), headers.clone(), payload.clone().into());
        let twice = async {
            match ask().await {
                Err(error) if error.kind() == RequestErrorKind::TimedOut => ask().await,
                answered => answered,
            }
        };
        let answered = tokio::select! {
            answered = twice => answered,
            refusal = refusal => {
                let text = format!("NATS does not let this user ask on {subject}: log in as the Architect ({refusal})");
                return Err(BusError::new(BusErrorKind::Forbidden, text));
            }
        };
        let message = answered.map_err(|e| match e.kind() {
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

    /// What is published on a subject from now on, with the subject of each.
    pub async fn listen(&self, subject: &str) -> Result<impl Stream<Item = (String, Vec<u8>)>, BusError> {
        let failed = |e: String| BusError::new(BusErrorKind::Subscribe, format!("cannot listen to {subject}: {e}"));
        let subscription = self.nats.subscribe(subject.to_owned()).await.map_err(|e| failed(e.to_string()))?;
        Ok(subscription.map(|message| (message.subject.to_string(), message.payload.to_vec())))
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
