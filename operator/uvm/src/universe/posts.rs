//! Messages that objects send to run in turns of their own (`async`, timers): rows of the store from the commit of the
//! turn that sent them to the commit of the turn that carried them out, which removes them. So each takes effect once.
//!
//! What one object sends another arrives in the order in which it was sent: a sender's rows are numbered by the turns in
//! which it sent, and a courier delivers those of a pair one after the other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use batos_covenant::{Encoding, ErrorReply, PostFailedEvent, decode, encode};
use batos_graph::{Batch, Expect, Key, MAX_RECORD, ObjectId, Put, Rev, StoreError, Value};
use serde::{Deserialize, Serialize};

use super::{Changes, Universe, UniverseError, commit::Delivered, shards::Filled, sharing::Group};
use crate::vm::{Effects, Limits, Post, TimerId};

/// A message that has not begun this long after the one from outside that led to it, or after its timer, is given up.
const LIFE: Duration = Duration::from_secs(3600);
/// Rows that one look at a shard takes.
const PAGE: usize = 256;

/// A message as it waits in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The object whose turn sent it.
    pub sender: ObjectId,
    pub post: Post,
    /// How long the chain of messages may still become.
    pub hops: u32,
    /// Milliseconds since 1970 after which it is given up.
    pub expires: u64,
}

impl Envelope {
    /// The objects that it refers to; those of the image are left out.
    pub(super) fn targets(&self) -> impl Iterator<Item = ObjectId> {
        let arguments = self.post.arguments.iter().filter_map(|argument| match argument {
            Value::Ref(id) => Some(*id),
            _ => None,
        });
        arguments.chain([self.post.receiver, self.sender]).filter(|id| !id.is_well_known())
    }
}

/// A message that waits, with its place.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub key: Key,
    pub rev: Rev,
    pub envelope: Envelope,
}

impl Waiting {
    pub fn is_expired(&self) -> bool {
        self.envelope.expires < now()
    }

    /// The turn that carries it out removes it.
    pub(super) fn delivered(&self) -> Delivered {
        Delivered { key: self.key.clone(), rev: self.rev }
    }
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The messages of a turn in their envelopes. `cause`: the message that the turn carries out, unless it came from outside.
pub(super) fn seal(sender: ObjectId, effects: &mut Effects, cause: Option<&Envelope>, now: u64) -> Vec<Envelope> {
    let life = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
    let hops = cause.map_or(Limits::default().hops, |cause| cause.hops);
    let expires = cause.map_or(now.saturating_add(life), |cause| cause.expires);
    // An object that sets itself a timer in each turn of it goes on for ever; what branches off ends some time.
    let first_timer = effects.posts.iter().position(|post| post.timer.is_some());
    let seal = |(place, post): (usize, Post)| Envelope {
        sender,
        hops: if first_timer == Some(place) { hops } else { hops.saturating_sub(1) },
        expires: post.timer.map_or(expires, |timer| timer.due.saturating_add(life)),
        post,
    };
    std::mem::take(&mut effects.posts).into_iter().enumerate().map(seal).collect()
}

impl Universe {
    /// Adds a turn's messages, and the timers it stops, to its batch.
    pub(super) async fn send_posts(
        &self,
        batch: &mut Batch,
        posts: &[Envelope],
        cancelled: &[(ObjectId, TimerId)],
        group: &Group,
    ) -> Result<(), UniverseError> {
        let keys = self.inner.keys;
        batch.delete.extend(cancelled.iter().map(|(id, timer)| keys.timer(*id, timer.due, timer.nonce)));
        let mut turn = 0;
        if let Some(first) = posts.iter().find(|envelope| envelope.post.timer.is_none()) {
            let key = keys.sent(first.sender);
            let rev = match group.rev(&key) {
                Some(rev) => rev,
                None => {
                    let rows = self.inner.store.peek(std::slice::from_ref(&key)).await.map_err(UniverseError::Store)?;
                    rows.into_iter().next().flatten().map(|row| row.rev)
                }
            };
            turn = rev.unwrap_or(0) + 1;
            batch.expect.push(Expect { key: key.clone(), rev });
            batch.put.push(Put { key, bytes: Vec::new() });
        }
        for (envelope, number) in posts.iter().zip(0..) {
            let key = match envelope.post.timer {
                Some(timer) => keys.timer(envelope.post.receiver, timer.due, timer.nonce),
                None => keys.post(envelope.sender, turn, number),
            };
            let bytes = encode(envelope, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
            if bytes.len() > MAX_RECORD {
                let text =
                    format!("message {:?} has {} bytes, more than {MAX_RECORD}", envelope.post.selector, bytes.len());
                return Err(UniverseError::Store(StoreError::TooLarge(text)));
            }
            batch.put.push(Put { key, bytes });
        }
        Ok(())
    }

    /// Waits until commits left messages or timers, or until `at_most` has passed.
    pub async fn posted(&self, at_most: Duration) -> Filled {
        self.inner.posts.filled(at_most).await
    }

    /// Messages of a shard that wait, in the order in which each object sent them; after `after`, if it is given.
    pub async fn posts(&self, shard: u8, after: Option<&Key>) -> Result<Vec<Waiting>, UniverseError> {
        let (start, end) = self.inner.keys.post_range(shard);
        let start = after.map_or(start, |after| after.successor());
        self.waiting(&start, &end).await
    }

    /// Timers of a shard that are due, and when the next one is.
    pub async fn timers(&self, shard: u8) -> Result<(Vec<Waiting>, Option<u64>), UniverseError> {
        let (start, end) = self.inner.keys.timer_range(shard);
        let mut waiting = self.waiting(&start, &end).await?;
        let due = |waiting: &Waiting| waiting.envelope.post.timer.map_or(0, |timer| timer.due);
        let now = now();
        let first = waiting.iter().position(|waiting| due(waiting) > now).unwrap_or(waiting.len());
        let next = waiting.get(first).map(due);
        waiting.truncate(first);
        Ok((waiting, next))
    }

    async fn waiting(&self, start: &Key, end: &Key) -> Result<Vec<Waiting>, UniverseError> {
        let rows = self.inner.store.scan(start, end, None, PAGE).await.map_err(UniverseError::Store)?;
        let parse = |(key, row): (Key, batos_graph::Versioned)| match decode(&row.bytes) {
            Ok((envelope, _)) => Some(Waiting { key, rev: row.rev, envelope }),
            Err(error) => {
                tracing::error!(?key, %error, "a message that nobody can read stays where it is");
                None
            }
        };
        Ok(rows.into_iter().filter_map(parse).collect())
    }

    /// Whether nobody has delivered it yet.
    pub(super) async fn is_waiting(&self, waiting: &Waiting) -> Result<bool, UniverseError> {
        let rows = self.inner.store.peek(std::slice::from_ref(&waiting.key)).await.map_err(UniverseError::Store)?;
        Ok(rows.first().is_some_and(|row| row.as_ref().is_some_and(|row| row.rev == waiting.rev)))
    }

    /// Removes a message that cannot be carried out, with an event that says why.
    pub async fn give_up(&self, waiting: &Waiting, error: ErrorReply) -> Result<(), UniverseError> {
        let changes = Changes {
            events: vec![self.failed_event(waiting, error).await?],
            delivered: Some(waiting.delivered()),
            ..Changes::default()
        };
        match self.commit(self.fresh_marker()?, Vec::new(), changes).await {
            Err(UniverseError::Store(StoreError::Conflict(_))) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn failed_event(&self, waiting: &Waiting, error: ErrorReply) -> Result<Put, UniverseError> {
        let Envelope { sender, post, .. } = &waiting.envelope;
        tracing::warn!(receiver = %post.receiver, selector = post.selector, error = error.message, "a message failed");
        let event = PostFailedEvent {
            object: post.receiver.to_string(),
            sender: sender.to_string(),
            selector: post.selector.clone(),
            error,
        };
        let record = super::View::new(self).object(post.receiver).await?;
        let token = record.map(|(_, record)| super::render::subject_token(post.receiver, &record));
        // An event of its own, not one of a revision of the receiver.
        let subject = ObjectId::of_name(&format!("post {:?} {}", waiting.key, waiting.rev));
        self.event_row(subject, 1, token.unwrap_or_else(|| post.receiver.to_string()), "failed", &event)
    }
}
