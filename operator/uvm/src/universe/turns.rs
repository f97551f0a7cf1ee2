//! One message, one turn, one transaction.

use std::{sync::atomic::Ordering, time::Duration};

use batos_covenant::{
    ApplyCommand, Encoding, ErrorKind, ErrorReply, Made, OkReply, RemoveCommand, Reply, SendCommand, Wire, decode,
    encode,
};
use batos_graph::{Key, ObjectId, Place, Put, Record, Rev, StoreError};
use serde::{Deserialize, Serialize};

use super::{
    Authority, Ended, Universe, UniverseError, View, Waiting,
    commit::Changes,
    history::{differences, whole},
    posts, render, retention,
    witness::Seen,
};
use crate::vm::{Call, Limits, NotUnderstood, Question, Turn, VmError};

/// How often a turn runs again on fresh objects before its sender hears of the conflict.
pub(super) const ATTEMPTS: u32 = 24;

/// Largest reply, in bytes: it is kept with its message, in one record of the store, and must fit into one of the bus.
pub const MAX_REPLY: usize = 256 * 1024;

/// A request that changes the graph, or may.
#[derive(Debug, Clone)]
pub struct Message {
    pub object: ObjectId,
    pub authority: Authority,
    pub sender: String,
    /// Scoped by sender. Without one, a repeat is another message.
    pub id: Option<String>,
    /// Digest of the payload: the same id with another payload is refused.
    pub digest: [u8; 32],
    /// Encoding of the reply.
    pub encoding: Encoding,
    pub work: Work,
}

#[derive(Debug, Clone)]
pub enum Work {
    /// `made` tells the sender of the method that had to be made for this message.
    Send {
        send: SendCommand,
        made: Option<Made>,
    },
    /// Statements, with self = the object.
    Eval {
        source: String,
        made: Option<Made>,
    },
    CreateMethod {
        name: String,
        source: String,
    },
    /// Gives a slot the content before its last change.
    Undo {
        slot: String,
    },
    Apply {
        name: String,
        apply: ApplyCommand,
    },
    Remove {
        name: String,
        remove: RemoveCommand,
    },
    /// A message that an object sent.
    Post {
        waiting: Box<Waiting>,
    },
}

/// How a message ended.
#[derive(Debug)]
pub enum Delivery {
    /// The encoded reply; all that it rests on is durable.
    Replied(Vec<u8>),
    /// Nobody understands the message; the turn left no trace.
    NotUnderstood(Unanswered),
}

/// A message that nobody understood, with what a becoming needs.
#[derive(Debug, Clone)]
pub struct Unanswered {
    pub receiver: ObjectId,
    pub selector: String,
    /// Types of the arguments: what minds are told.
    pub shapes: Vec<String>,
    /// The arguments, where it is the message that the sender sent: for the Crucible alone.
    pub arguments: Option<Vec<Wire>>,
    /// Who sent the message that led there; empty for objects.
    pub sender: String,
    /// The object whose intent of that name has no method yet.
    pub intent: Option<ObjectId>,
    /// What a model is asked, when the intent's outcome is its to say.
    pub question: Option<Box<Question>>,
}

impl Unanswered {
    /// That nobody sent: something else asks for it.
    pub fn of(receiver: ObjectId, selector: &str) -> Self {
        Self {
            receiver,
            selector: selector.to_owned(),
            shapes: Vec::new(),
            arguments: None,
            sender: String::new(),
            intent: None,
            question: None,
        }
    }
}

/// A model's answer, as a turn takes it, with the key of its question.
pub type Outcome = ([u8; 32], Wire);

/// What the inbox remembers of a message.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(with = "serde_bytes")]
    digest: [u8; 32],
    #[serde(with = "serde_bytes")]
    reply: Vec<u8>,
    /// When, in seconds since 1970: housekeeping goes by it. 0 in markers that are older than this field.
    #[serde(default)]
    at: u64,
}

/// What a message comes to, before anything is committed.
pub(super) enum Prepared {
    /// It was carried out before.
    Stored(Vec<u8>),
    Unanswered {
        changes: Changes,
        missing: NotUnderstood,
    },
    /// A reply that leaves no trace.
    Read {
        changes: Changes,
        reply: Vec<u8>,
        seen: Option<Seen>,
    },
    Write {
        changes: Changes,
        reply: Vec<u8>,
        seen: Option<Seen>,
        marker: Key,
        stored: Vec<u8>,
    },
}

/// One try at a message, before it is committed.
pub(super) enum Attempt {
    Commit(Changes, Reply),
    NotUnderstood(Changes, NotUnderstood),
}

impl Universe {
    /// Carries out a message and makes it durable. Repeats with the same id get the stored reply.
    pub async fn deliver(&self, message: &Message) -> Result<Delivery, UniverseError> {
        self.deliver_with(message, &[]).await
    }

    /// As `deliver`, with what models have answered so far.
    pub async fn deliver_with(&self, message: &Message, outcomes: &[Outcome]) -> Result<Delivery, UniverseError> {
        let lane = self.inner.lanes.get(usize::from(message.object.shard()));
        // The others look at more of the graph than a group shows.
        let may_share = matches!(message.work, Work::Send { .. } | Work::Post { .. });
        if let Some(lane) = lane.filter(|_| may_share && !self.inner.store.pipelines()) {
            return self.deliver_shared(lane, message, outcomes).await;
        }
        let mut turn = match lane {
            Some(lane) => Some(lane.turn.lock().await),
            None => None,
        };
        let inbox = self.inbox(message);
        for attempt in 0..ATTEMPTS {
            let view = View::new(self);
            let (changes, reply, seen, marker, stored) =
                match self.prepared(message, outcomes, (inbox.as_ref(), true), &view).await? {
                    Prepared::Stored(reply) => return Ok(Delivery::Replied(reply)),
                    Prepared::Unanswered { changes, missing } => match self.is_current(&changes).await? {
                        true => return unanswered(missing, message),
                        false => continue,
                    },
                    Prepared::Read { changes, reply, seen } => match self.is_current(&changes).await? {
                        true => {
                            self.witnessed(seen);
                            return Ok(Delivery::Replied(reply));
                        }
                        false => continue,
                    },
                    Prepared::Write { changes, reply, seen, marker, stored } => (changes, reply, seen, marker, stored),
                };
            let read = if attempt + 1 == ATTEMPTS { changes.reads.objects.clone() } else { Vec::new() };
            match self.place(marker, stored, changes).await {
                Ok(durable) => {
                    // The next turn runs while this one is synced: turns on a hot object share syncs.
                    drop(turn.take());
                    durable.await.map_err(UniverseError::Store)?;
                    self.witnessed(seen);
                    return Ok(Delivery::Replied(reply));
                }
                Err(UniverseError::Store(StoreError::Conflict(keys))) => {
                    self.inner.conflicts.fetch_add(1, Ordering::Relaxed);
                    if attempt + 1 == ATTEMPTS {
                        return Err(self.contended(&keys, &read).await?);
                    }
                    pause(attempt).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.contended(&[], &[]).await?)
    }

    pub(super) fn witnessed(&self, seen: Option<Seen>) {
        self.inner.witness.get().into_iter().zip(seen).for_each(|(witness, seen)| witness.saw(seen));
    }

    /// The row that remembers the message, if it has an id.
    pub(super) fn inbox(&self, message: &Message) -> Option<Key> {
        let id = message.id.as_ref()?;
        let mut scoped = blake3::Hasher::new();
        scoped.update(message.sender.as_bytes()).update(&[0]).update(id.as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(scoped.finalize().as_bytes().split_at(16).0);
        Some(self.inner.keys.inbox(message.object, short))
    }

    /// The reply of a message that was carried out before.
    async fn earlier(&self, message: &Message, inbox: Option<&Key>) -> Result<Option<Vec<u8>>, UniverseError> {
        match &message.work {
            Work::Post { waiting } => Ok((!self.is_waiting(waiting).await?).then(Vec::new)),
            _ => self.stored_reply(inbox, message).await,
        }
    }

    /// Runs a message on what `view` shows. `looks`: whether it may be a repeat. Where that costs a round trip, the commit
    /// finds out; what is not committed is looked up in any case.
    pub(super) async fn prepared(
        &self,
        message: &Message,
        outcomes: &[Outcome],
        (inbox, looks): (Option<&Key>, bool),
        view: &View<'_>,
    ) -> Result<Prepared, UniverseError> {
        if looks && let Some(reply) = self.earlier(message, inbox).await? {
            return Ok(Prepared::Stored(reply));
        }
        let attempt = match self.refuse_expired(message) {
            Ok(()) => self.attempt(message, outcomes, view).await,
            Err(expired) => Err(expired),
        };
        let (mut changes, outcome) = match attempt {
            Ok(Attempt::Commit(changes, reply)) => (changes, reply),
            other => {
                if !looks && let Some(reply) = self.earlier(message, inbox).await? {
                    return Ok(Prepared::Stored(reply));
                }
                match other? {
                    Attempt::NotUnderstood(changes, missing) => return Ok(Prepared::Unanswered { changes, missing }),
                    Attempt::Commit(changes, reply) => (changes, reply),
                }
            }
        };
        let bytes = |reply: &Reply| encode(reply, message.encoding).map_err(|e| UniverseError::Internal(e.to_string()));
        let mut reply = bytes(&outcome)?;
        if reply.len() > MAX_REPLY {
            changes = Changes::reading(changes.reads);
            let text = format!("the answer has {} bytes; at most {MAX_REPLY} fit into a message", reply.len());
            reply = bytes(&Reply::Error { error: ErrorReply::new(ErrorKind::LimitExceeded, text) })?;
        }
        if let Work::Post { waiting } = &message.work {
            if let Reply::Error { error } = &outcome {
                changes.events.push(self.failed_event(waiting, error.clone()).await?);
            }
            changes.delivered = Some(waiting.delivered());
        }
        let seen = self.inner.witness.get().and_then(|_| Seen::of(message, &changes));
        let (marker, stored) = match inbox {
            None if changes.is_only_reading() => return Ok(Prepared::Read { changes, reply, seen }),
            // Nobody can ask for this reply again.
            None => (self.fresh_marker()?, Vec::new()),
            Some(key) => {
                let stored = Stored { digest: message.digest, reply: reply.clone(), at: self.now() };
                let stored = encode(&stored, Encoding::MessagePack);
                (key.clone(), stored.map_err(|e| UniverseError::Internal(e.to_string()))?)
            }
        };
        changes.cause = Some(cause(message));
        Ok(Prepared::Write { changes, reply, seen, marker, stored })
    }

    /// What a message hears that has lost against others as often as it may.
    pub(super) async fn contended(
        &self,
        stale: &[Key],
        read: &[(ObjectId, Option<Rev>)],
    ) -> Result<UniverseError, UniverseError> {
        let conflict = self.conflict(stale, read).await?;
        Ok(UniverseError::Contended { attempts: ATTEMPTS, conflict })
    }

    /// Names what a message lost against: object, slot and the other message.
    async fn conflict(&self, stale: &[Key], read: &[(ObjectId, Option<Rev>)]) -> Result<String, UniverseError> {
        let object = |key: &Key| match Place::of(key) {
            Some(Place::Head(id)) => read.iter().find(|(read, _)| *read == id),
            _ => None,
        };
        let Some((id, rev)) = stale.iter().find_map(object) else { return Ok("what it read".to_owned()) };
        let Some((_, now)) = View::new(self).object(*id).await? else {
            return Ok(format!("object {id}, which is gone"));
        };
        let name = now.name.clone().unwrap_or_else(|| id.to_string());
        let before = match rev {
            Some(rev) => self.revision_at(*id, *rev).await?.unwrap_or_default(),
            None => Record::default(),
        };
        let changes = differences(&(0, whole(before)), &(1, whole((*now).clone())));
        let slots: Vec<String> = changes.iter().map(|change| format!("{:?}", change.slot)).collect();
        let slots = if slots.is_empty() { "its contents".to_owned() } else { format!("slot {}", slots.join(", ")) };
        let other = now.cause.clone().unwrap_or_else(|| "another message".to_owned());
        Ok(format!("{slots} of {name}, which was changed by {other}"))
    }

    /// A message whose id says that it is older than any reply that is kept: nobody knows whether it was carried out.
    fn refuse_expired(&self, message: &Message) -> Result<(), UniverseError> {
        let Some(id) = &message.id else { return Ok(()) };
        match retention::time_of(id) {
            Some(made) if self.inner.retention.replies.has_passed(made, self.now()) => {
                Err(UniverseError::IdExpired(id.clone()))
            }
            _ => Ok(()),
        }
    }

    async fn stored_reply(&self, inbox: Option<&Key>, message: &Message) -> Result<Option<Vec<u8>>, UniverseError> {
        let Some(key) = inbox else { return Ok(None) };
        let (store, key) = (&self.inner.store, std::slice::from_ref(key));
        if store.peek(key).await.map_err(UniverseError::Store)? == [None] {
            return Ok(None);
        }
        let rows = store.read(key).await.map_err(UniverseError::Store)?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok(None) };
        let (stored, _): (Stored, _) = decode(&row.bytes).map_err(|e| UniverseError::Internal(e.to_string()))?;
        match stored.digest == message.digest {
            true => Ok(Some(stored.reply)),
            false => Err(UniverseError::IdReused(message.id.clone().unwrap_or_default())),
        }
    }

    async fn attempt(
        &self,
        message: &Message,
        outcomes: &[Outcome],
        view: &View<'_>,
    ) -> Result<Attempt, UniverseError> {
        match &message.work {
            Work::Send { send, made } => {
                let call = Call {
                    receiver: message.object,
                    selector: send.selector.clone(),
                    arguments: send.arguments.clone(),
                };
                let turn = Turn::new(&call, Limits::default(), self.seed(message)?)?;
                self.attempt_turn(message, turn, (outcomes, view), made.clone()).await
            }
            Work::Eval { source, made } => {
                let turn = Turn::eval(message.object, source, Limits::default(), self.seed(message)?)?;
                self.attempt_turn(message, turn, (outcomes, view), made.clone()).await
            }
            Work::CreateMethod { name, source } => self.attempt_create_method(message.object, name, source).await,
            Work::Post { waiting } => {
                let limits = Limits { hops: waiting.envelope.hops, ..Limits::default() };
                let turn = Turn::of_post(&waiting.envelope.post, limits, self.seed(message)?)?;
                self.attempt_turn(message, turn, (outcomes, view), None).await
            }
            Work::Undo { slot } => self.attempt_undo(message.object, slot).await,
            Work::Apply { name, apply } => self.attempt_apply(name, apply).await,
            Work::Remove { name, remove } => self.attempt_remove(name, remove).await,
        }
    }

    /// What was kept under this key beside an object; it goes as replies go.
    pub async fn recall(&self, object: ObjectId, key: [u8; 16]) -> Result<Option<Vec<u8>>, UniverseError> {
        let key = self.inner.keys.inbox(object, key);
        let rows = self.inner.store.read(&[key]).await.map_err(UniverseError::Store)?;
        let Some(row) = rows.into_iter().next().flatten() else { return Ok(None) };
        let (stored, _): (Stored, _) = decode(&row.bytes).map_err(|e| UniverseError::Internal(e.to_string()))?;
        Ok(Some(stored.reply))
    }

    /// The row that keeps bytes so; whoever writes it first is first.
    pub fn kept(&self, object: ObjectId, key: [u8; 16], bytes: Vec<u8>) -> Result<(Put, Option<Rev>), UniverseError> {
        let stored = Stored { digest: [0; 32], reply: bytes, at: self.now() };
        let bytes = encode(&stored, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
        Ok((Put { key: self.inner.keys.inbox(object, key), bytes }, None))
    }

    /// What decides time, randomness and new ids: the same for a repeat under the same id.
    fn seed(&self, message: &Message) -> Result<[u8; 32], UniverseError> {
        let mut seed = blake3::Hasher::new();
        seed.update(self.inner.name.as_bytes()).update(&message.object.0).update(&message.digest);
        match &message.id {
            Some(id) => seed.update(message.sender.as_bytes()).update(&[0]).update(id.as_bytes()),
            None => seed.update(&self.random()?),
        };
        Ok(*seed.finalize().as_bytes())
    }

    async fn attempt_turn(
        &self,
        message: &Message,
        mut turn: Turn,
        (outcomes, view): (&[Outcome], &View<'_>),
        made: Option<Made>,
    ) -> Result<Attempt, UniverseError> {
        outcomes.iter().for_each(|(key, answer)| turn.supply_outcome(*key, answer.clone()));
        let now = posts::now();
        turn = turn.starting_at(now);
        let ended = view.end(&mut turn, message.authority, message.object).await?;
        let mut changes = Changes::reading(turn.reads());
        let transcript = turn.transcript();
        let reply = match ended {
            Ended::NotUnderstood(missing) => return Ok(Attempt::NotUnderstood(changes, missing)),
            Ended::Refused(refused) => Reply::Error { error: refused.to_reply() },
            Ended::Done(mut effects) => {
                let cause = match &message.work {
                    Work::Post { waiting } => Some(&waiting.envelope),
                    _ => None,
                };
                changes.posts = posts::seal(message.object, &mut effects, cause, now);
                changes.cancelled = effects.cancelled;
                changes.writes = effects.writes;
                if let Work::Send { send, .. } = &message.work {
                    self.require(&mut changes, send.arguments.iter().flat_map(render::named).collect(), view).await?;
                }
                let rev = changes.rev_after(message.object);
                if let Some(shown) = &transcript {
                    changes.events.push(self.transcript_row(message.object, rev, shown).await?);
                }
                Reply::Ok(OkReply { value: effects.answer, rev, made, transcript })
            }
            Ended::Failed(VmError { kind: ErrorKind::NoSuchObject, .. }) if changes.is_absent(message.object) => {
                return Err(UniverseError::NoSuchObject(message.object.to_string()));
            }
            Ended::Failed(VmError { kind, message, stack, fault }) => {
                changes.fault = fault;
                let transcript = transcript.map(Box::new);
                Reply::Error { error: ErrorReply { stack, transcript, ..ErrorReply::new(kind, message) } }
            }
        };
        Ok(Attempt::Commit(changes, reply))
    }
}

pub(super) fn unanswered(missing: NotUnderstood, message: &Message) -> Result<Delivery, UniverseError> {
    // A model may be asked on behalf of an object that only the turn has.
    let asker = missing.intent.filter(|_| missing.question.is_some());
    match missing.receiver.or(asker) {
        Some(receiver) => {
            let NotUnderstood { selector, shapes, intent, question, .. } = missing;
            let arguments = match &message.work {
                Work::Send { send, .. } if receiver == message.object && selector == send.selector => {
                    Some(send.arguments.clone())
                }
                _ => None,
            };
            let sender = message.sender.clone();
            Ok(Delivery::NotUnderstood(Unanswered { receiver, selector, shapes, arguments, sender, intent, question }))
        }
        None => Err(UniverseError::Turn(VmError {
            kind: ErrorKind::NotUnderstood,
            message: format!("a transient object does not understand {:?}", missing.selector),
            stack: Vec::new(),
            fault: None,
        })),
    }
}

/// A message for people, as the records that it writes remember it.
fn cause(message: &Message) -> String {
    const MOST: usize = 120;
    let what = match &message.work {
        Work::Send { send, .. } => format!("send {}", send.selector),
        Work::Eval { .. } => "eval".to_owned(),
        Work::CreateMethod { name, .. } => format!("create_method {name}"),
        Work::Undo { slot } => format!("undo {slot}"),
        Work::Apply { apply, .. } => format!("apply, generation {}", apply.generation),
        Work::Remove { remove, .. } => format!("remove, generation {}", remove.generation),
        Work::Post { waiting } => format!("send {} from {}", waiting.envelope.post.selector, waiting.envelope.sender),
    };
    let sender = if message.sender.is_empty() { String::new() } else { format!(" from {}", message.sender) };
    let id = message.id.as_ref().map_or(String::new(), |id| format!(", id {id}"));
    let text = format!("{what}{sender}{id}");
    text.chars().take(MOST).collect()
}

/// Jittered: writers that met once shall not meet again.
pub(super) async fn pause(attempt: u32) {
    let mut byte = [0; 1];
    let jitter = getrandom::fill(&mut byte).map_or(128, |()| u64::from(byte[0]));
    tokio::time::sleep(Duration::from_micros((1 << attempt.min(8)) * (50 + jitter))).await;
}
