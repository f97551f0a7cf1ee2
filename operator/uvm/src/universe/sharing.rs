//! Messages that share a commit. Where a commit takes round trips, messages to the objects of one shard that wait for each
//! other are carried out one after the other, each on what those before it leave, and written as one batch: every one
//! with its own marker, reply, history and events, all or none of them. What cannot join a batch begins the next.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use batos_graph::{Batch, Expect, Key, ObjectId, Put, Record, Rev, StoreError};
use tokio::sync::oneshot;

use super::{
    Delivery, Message, Outcome, Seen, Universe, UniverseError, View, Work,
    commit::{Changes, Composed},
    turns::{ATTEMPTS, Prepared, pause, unanswered},
};

/// Messages that share a batch at most.
const MESSAGES: usize = 64;
/// What their writes may take together, in bytes; a single message may take more.
const BYTES: usize = 1 << 20;

type Told = oneshot::Sender<Result<Delivery, UniverseError>>;

/// Messages to the objects of one shard, and the turn that one of them has.
#[derive(Default)]
pub(super) struct Lane {
    pub turn: tokio::sync::Mutex<()>,
    waiting: Mutex<VecDeque<Waiter>>,
}

struct Waiter {
    message: Message,
    outcomes: Vec<Outcome>,
    attempts: u32,
    /// Whether something tells that it may be a repeat.
    looks: bool,
    told: Told,
}

/// A message whose reply waits for the commit.
struct Member {
    waiter: Waiter,
    reply: Vec<u8>,
    seen: Option<Seen>,
    read: Vec<(ObjectId, Option<Rev>)>,
}

/// What becomes of a message that a group meets.
enum Joined {
    In {
        reply: Vec<u8>,
        seen: Option<Seen>,
        read: Vec<(ObjectId, Option<Rev>)>,
    },
    /// Nothing of it has to be written, or it failed.
    Ended(Result<Delivery, UniverseError>),
    /// It has to see what the group has written.
    Apart,
    /// What it read was stale.
    Again,
}

/// Changes of messages that will be one batch.
#[derive(Default)]
pub(super) struct Group {
    marker: Option<(Key, Vec<u8>)>,
    expect: Vec<Expect>,
    lock: Vec<Key>,
    put: BTreeMap<Key, Vec<u8>>,
    delete: BTreeSet<Key>,
    passes: BTreeMap<Key, Rev>,
    /// Revisions of keys after these changes, as far as somebody expected one.
    revs: BTreeMap<Key, Option<Rev>>,
    /// Objects after these changes.
    objects: BTreeMap<ObjectId, (Rev, Arc<Record>)>,
    deleted: Vec<ObjectId>,
    unnamed: Vec<String>,
    messages: usize,
    bytes: usize,
}

impl Group {
    pub fn view<'a>(&self, universe: &'a Universe) -> View<'a> {
        View::after(universe, &self.objects)
    }

    /// The revision of a key after these changes, if they tell.
    pub fn rev(&self, key: &Key) -> Option<Option<Rev>> {
        self.revs.get(key).copied()
    }

    fn is_empty(&self) -> bool {
        self.messages == 0
    }

    fn touches(&self, key: &Key) -> bool {
        self.put.contains_key(key) || self.delete.contains(key) || self.marker.iter().any(|(marker, _)| marker == key)
    }

    /// Whether what is expected holds after these changes, or may hold before them.
    fn agrees(&self, expect: &[Expect]) -> bool {
        expect.iter().all(|Expect { key, rev }| match self.revs.get(key) {
            Some(known) => known == rev,
            // Written without knowing its revision.
            None => !self.touches(key),
        })
    }

    fn admits(&self, batch: &Batch) -> bool {
        let bytes = self.bytes.saturating_add(size(batch));
        let room = self.is_empty() || (self.messages < MESSAGES && bytes <= BYTES);
        // Deleted and written again, a key would count from 1.
        let fits = batch.put.iter().all(|put| !self.delete.contains(&put.key));
        room && fits && !self.touches(&batch.marker) && self.agrees(&batch.expect)
    }

    fn expect(&mut self, expect: Vec<Expect>) {
        for Expect { key, rev } in expect {
            if !self.revs.contains_key(&key) {
                self.revs.insert(key.clone(), rev);
                self.expect.push(Expect { key, rev });
            }
        }
    }

    fn put(&mut self, Put { key, bytes }: Put) {
        if let Some(rev) = self.revs.get_mut(&key) {
            *rev = Some(rev.unwrap_or(0) + 1);
        }
        if self.put.insert(key.clone(), bytes).is_some() {
            *self.passes.entry(key).or_default() += 1;
        }
    }

    /// Takes in what it admits.
    fn add(&mut self, Composed { batch, written, deleted, unnamed }: Composed) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(size(&batch));
        self.expect(batch.expect);
        self.lock.extend(batch.lock);
        batch.put.into_iter().for_each(|put| self.put(put));
        for key in batch.delete {
            if let Some(rev) = self.revs.get_mut(&key) {
                *rev = None;
            }
            self.put.remove(&key);
            self.passes.remove(&key);
            self.delete.insert(key);
        }
        match self.marker {
            None => self.marker = Some((batch.marker, batch.marker_bytes)),
            Some(_) => {
                self.expect(vec![Expect { key: batch.marker.clone(), rev: None }]);
                self.put(Put { key: batch.marker, bytes: batch.marker_bytes });
            }
        }
        self.deleted.extend(deleted);
        self.unnamed.extend(unnamed);
        self.objects.extend(written.into_iter().map(|(id, rev, record)| (id, (rev, record))));
    }

    /// All of it as one batch; none if nothing is written.
    fn composed(self) -> Option<Composed> {
        let Self { marker, expect, lock, put, delete, passes, objects, deleted, unnamed, .. } = self;
        let (marker, marker_bytes) = marker?;
        let put = put.into_iter().map(|(key, bytes)| Put { key, bytes }).collect();
        let batch = Batch { marker, marker_bytes, expect, lock, put, delete: delete.into_iter().collect(), passes };
        let written = objects.into_iter().map(|(id, (rev, record))| (id, rev, record)).collect();
        Some(Composed { batch, written, deleted, unnamed })
    }
}

fn size(batch: &Batch) -> usize {
    batch.put.iter().map(|put| put.key.0.len() + put.bytes.len()).sum::<usize>() + batch.marker_bytes.len()
}

impl Lane {
    fn next(&self) -> Option<Waiter> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever gave up before it began is not carried out.
        waiting.retain(|waiter| !waiter.told.is_closed());
        waiting.pop_front()
    }

    fn put_back(&self, waiter: Waiter) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_front(waiter);
    }
}

impl Universe {
    /// Carries out a message, together with others that wait for the same lane.
    pub(super) async fn deliver_shared(
        &self,
        lane: &Lane,
        message: &Message,
        outcomes: &[Outcome],
    ) -> Result<Delivery, UniverseError> {
        let gone = || UniverseError::Store(StoreError::Unknown("whoever carried it out has stopped".to_owned()));
        let (told, mut answer) = oneshot::channel();
        let waiter = Waiter { message: message.clone(), outcomes: outcomes.to_vec(), attempts: 0, looks: false, told };
        lane.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiter);
        let _turn = tokio::select! {
            biased;
            told = &mut answer => return told.unwrap_or_else(|_| Err(gone())),
            turn = lane.turn.lock() => turn,
        };
        loop {
            match answer.try_recv() {
                Ok(told) => return told,
                Err(oneshot::error::TryRecvError::Closed) => return Err(gone()),
                Err(oneshot::error::TryRecvError::Empty) => Box::pin(self.carry_out_waiting(lane)).await,
            }
        }
    }

    /// One batch of those that wait.
    async fn carry_out_waiting(&self, lane: &Lane) {
        let (mut group, mut members) = (Group::default(), Vec::new());
        while let Some(mut waiter) = lane.next() {
            match self.join(&mut group, &waiter).await.unwrap_or_else(|error| Joined::Ended(Err(error))) {
                Joined::In { reply, seen, read } => members.push(Member { waiter, reply, seen, read }),
                Joined::Ended(result) => drop(waiter.told.send(result)),
                Joined::Apart => {
                    waiter.looks |= self.inbox(&waiter.message).is_some_and(|inbox| group.touches(&inbox));
                    lane.put_back(waiter);
                    break;
                }
                Joined::Again => {
                    pause(waiter.attempts).await;
                    waiter.attempts += 1;
                    match waiter.attempts < ATTEMPTS {
                        true => lane.put_back(waiter),
                        false => drop(waiter.told.send(self.contended(&[], &[]).await.and_then(Err))),
                    }
                    break;
                }
            }
        }
        let Some(composed) = group.composed() else { return };
        let committed = match self.enter(composed).await {
            Ok(durable) => durable.await.map_err(UniverseError::Store),
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => {
                for Member { waiter, reply, seen, .. } in members {
                    self.witnessed(seen);
                    let _ = waiter.told.send(Ok(Delivery::Replied(reply)));
                }
            }
            Err(UniverseError::Store(StoreError::Conflict(stale))) => self.run_again(lane, members, &stale).await,
            Err(UniverseError::Store(error)) => {
                let fail = |member: Member| drop(member.waiter.told.send(Err(UniverseError::Store(error.clone()))));
                members.into_iter().for_each(fail);
            }
            Err(error) => {
                let text = error.to_string();
                let fail = |member: Member| drop(member.waiter.told.send(Err(UniverseError::Internal(text.clone()))));
                members.into_iter().for_each(fail);
            }
        }
    }

    /// They lost against another worker: all run on what is there now, in their order, as often as a message may.
    async fn run_again(&self, lane: &Lane, members: Vec<Member>, stale: &[Key]) {
        self.inner.conflicts.fetch_add(1, Ordering::Relaxed);
        let most = members.iter().map(|member| member.waiter.attempts).max().unwrap_or_default();
        for Member { mut waiter, read, .. } in members.into_iter().rev() {
            waiter.attempts += 1;
            waiter.looks |= match &waiter.message.work {
                Work::Post { waiting } => stale.contains(&waiting.key),
                _ => self.inbox(&waiter.message).is_some_and(|inbox| stale.contains(&inbox)),
            };
            if waiter.attempts < ATTEMPTS {
                lane.put_back(waiter);
                continue;
            }
            let _ = waiter.told.send(self.contended(stale, &read).await.and_then(Err));
        }
        pause(most).await;
    }

    async fn join(&self, group: &mut Group, waiter: &Waiter) -> Result<Joined, UniverseError> {
        let Waiter { message, outcomes, looks, .. } = waiter;
        let inbox = self.inbox(message);
        if inbox.as_ref().is_some_and(|inbox| group.touches(inbox)) {
            return Ok(Joined::Apart);
        }
        let view = group.view(self);
        let prepared = match self.prepared(message, outcomes, (inbox.as_ref(), *looks), &view).await {
            Err(_) if !group.is_empty() => return Ok(Joined::Apart),
            other => other?,
        };
        let read = |changes: &Changes| changes.reads.objects.clone();
        match prepared {
            Prepared::Stored(reply) => Ok(Joined::Ended(Ok(Delivery::Replied(reply)))),
            Prepared::Unanswered { .. } if !group.is_empty() => Ok(Joined::Apart),
            Prepared::Unanswered { changes, missing } => Ok(match self.is_current(&changes).await? {
                true => Joined::Ended(unanswered(missing, message)),
                false => Joined::Again,
            }),
            Prepared::Read { changes, reply, seen } if group.is_empty() => {
                if !self.is_current(&changes).await? {
                    return Ok(Joined::Again);
                }
                self.witnessed(seen);
                Ok(Joined::Ended(Ok(Delivery::Replied(reply))))
            }
            Prepared::Read { changes, reply, seen } => {
                let (expected, read) = (self.expectations(&changes), read(&changes));
                if !group.agrees(&expected) {
                    return Ok(Joined::Apart);
                }
                group.expect(expected);
                Ok(Joined::In { reply, seen, read })
            }
            Prepared::Write { changes, reply, seen, marker, stored } => {
                let read = read(&changes);
                let composed = self.composed(marker, stored, changes, group).await?;
                if !group.admits(&composed.batch) {
                    return Ok(Joined::Apart);
                }
                group.add(composed);
                Ok(Joined::In { reply, seen, read })
            }
        }
    }
}
