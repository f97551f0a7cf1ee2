//! Which of several operators acts: the holder of the Lease `batos-operator`.
//!
//! Every write of the Lease carries the resource version that was read, so that of two candidates one is refused. Clocks
//! are never compared: a candidate takes over a Lease that has not changed for its whole duration by the candidate's own
//! monotonic clock, and a holder stops to act at two thirds of it, counted from before its last renewal was sent. A holder
//! that was paused finds its time over when it wakes; what it may still have sent bears its term, and the universes refuse
//! older terms.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::{sync::watch, time::Instant};

use crate::{context::bounded, error::Error, meta};

const LEASE: &str = "batos-operator";
const TERM: &str = "batos.dev/term";
/// A standby looks at the Lease this many times in its duration, and a holder renews it as often.
const BEATS: u32 = 6;

/// The right to act, as long as it lasts. Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    /// Larger than that of any holder before.
    pub term: i64,
    until: watch::Receiver<Instant>,
}

impl Leadership {
    /// Whether it still lasts: ask before each write.
    pub fn lasts(&self) -> bool {
        Instant::now() < *self.until.borrow()
    }

    /// Completes when it is over.
    pub async fn over(&self) {
        loop {
            let until = *self.until.borrow();
            tokio::time::sleep_until(until).await;
            if !self.lasts() {
                return;
            }
        }
    }

    #[cfg(test)]
    pub fn of_term(term: i64) -> Self {
        let (sender, until) = watch::channel(Instant::now() + Duration::from_secs(3600));
        drop(sender);
        Self { term, until }
    }
}

/// What a candidate does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Wait,
}

/// How long the candidate has seen the Lease as it is.
#[derive(Debug, Default)]
struct Watch(Option<(String, Instant)>);

impl Watch {
    /// `lease` is what was read at `now`; `own` is this candidate's duration, for a Lease that names none.
    fn step(&mut self, lease: Option<&Lease>, own: Duration, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Take };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.is_none_or(|holder| holder.is_empty()) {
            return Step::Take;
        }
        let version = lease.resource_version().unwrap_or_default();
        let since = match &self.0 {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.0 = Some((version, now));
                now
            }
        };
        let named = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = named.map_or(own, Duration::from_secs).max(Duration::from_secs(1));
        if now.saturating_duration_since(since) >= duration { Step::Take } else { Step::Wait }
    }
}

/// One more than the last; the clock only matters when the Lease was lost.
fn following(lease: &Lease, now: Timestamp) -> i64 {
    let last = lease.annotations().get(TERM).and_then(|last| last.parse().ok()).unwrap_or(0_i64);
    last.saturating_add(1).max(now.as_second())
}

/// The Lease as `holder` wants it: taken anew, or renewed.
fn held(lease: &Lease, holder: &str, duration: Duration, term: i64, now: Timestamp) -> Lease {
    let mut lease = lease.clone();
    let before = lease.spec.take().unwrap_or_default();
    let renewal = before.holder_identity.as_deref() == Some(holder);
    let transitions = before.lease_transitions.unwrap_or(0);
    lease.metadata.name = Some(LEASE.to_owned());
    lease.metadata.managed_fields = None;
    lease.metadata.annotations.get_or_insert_default().insert(TERM.to_owned(), term.to_string());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
        acquire_time: if renewal { before.acquire_time } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if renewal { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    });
    lease
}

/// One operator among those that share the Lease.
pub struct Candidate {
    leases: Api<Lease>,
    /// Of this process alone: a restarted one under the same name is another.
    me: String,
    duration: Duration,
}

impl Candidate {
    pub fn new(client: Client, namespace: &str, name: &str, duration: Duration) -> Self {
        let me = format!("{name}_{:08x}", getrandom::u32().unwrap_or_default());
        Self { leases: Api::namespaced(client, namespace), me, duration }
    }

    fn beat(&self) -> Duration {
        self.duration / BEATS
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        bounded("reading the operator's Lease", self.leases.get_opt(LEASE)).await
    }

    /// Writes what follows from `found`; None when another was faster.
    async fn write(&self, found: bool, lease: &Lease) -> Result<Option<Lease>, Error> {
        let parameters = PostParams { field_manager: Some(meta::MANAGER.to_owned()), ..PostParams::default() };
        let written = match found {
            true => bounded("the operator's Lease", self.leases.replace(LEASE, &parameters, lease)).await,
            false => bounded("the operator's Lease", self.leases.create(&parameters, lease)).await,
        };
        match written {
            Ok(lease) => Ok(Some(lease)),
            Err(Error::Kubernetes { source, .. }) if is_race(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Completes when this candidate holds the Lease. Cancel safe.
    pub async fn acquire(self) -> Holder {
        let mut watch = Watch::default();
        loop {
            match self.try_acquire(&mut watch).await {
                Ok(Some((lease, sent))) => {
                    let term = lease.annotations().get(TERM).and_then(|term| term.parse().ok()).unwrap_or(0);
                    let (until, _) = watch::channel(sent + self.lasting());
                    return Holder { candidate: self, lease, term, until };
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "election"),
            }
            tokio::time::sleep(self.beat()).await;
        }
    }

    async fn try_acquire(&self, watch: &mut Watch) -> Result<Option<(Lease, Instant)>, Error> {
        let found = self.read().await?;
        if watch.step(found.as_ref(), self.duration, Instant::now()) == Step::Wait {
            return Ok(None);
        }
        let old = found.clone().unwrap_or_default();
        let (now, sent) = (Timestamp::now(), Instant::now());
        let lease = held(&old, &self.me, self.duration, following(&old, now), now);
        Ok(self.write(found.is_some(), &lease).await?.map(|lease| (lease, sent)))
    }

    /// How long a holder acts after a renewal: the rest of the duration is what others' clocks may differ by.
    fn lasting(&self) -> Duration {
        self.duration * 2 / 3
    }
}

/// The candidate that holds the Lease.
pub struct Holder {
    candidate: Candidate,
    lease: Lease,
    term: i64,
    until: watch::Sender<Instant>,
}

impl Holder {
    pub fn leadership(&self) -> Leadership {
        Leadership { term: self.term, until: self.until.subscribe() }
    }

    /// Renews until another has the Lease or `stop` completes; then the Lease is given back, so that the next need not
    /// wait.
    pub async fn keep(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return self.give_back().await,
                () = tokio::time::sleep(self.candidate.beat()) => {}
            }
            let sent = Instant::now();
            match self.renew().await {
                Ok(true) => drop(self.until.send(sent + self.candidate.lasting())),
                Ok(false) => {
                    tracing::warn!("another operator has the Lease");
                    let _ = self.until.send(Instant::now());
                    return;
                }
                Err(error) => tracing::warn!(%error, "the Lease is not renewed"),
            }
            // Too late counts as not at all: another may act by now.
            if Instant::now() >= *self.until.borrow() {
                return;
            }
        }
    }

    async fn renew(&mut self) -> Result<bool, Error> {
        let candidate = &self.candidate;
        let lease = held(&self.lease, &candidate.me, candidate.duration, self.term, Timestamp::now());
        if let Some(lease) = candidate.write(true, &lease).await? {
            self.lease = lease;
            return Ok(true);
        }
        // Refused: by another holder, or by an own write whose answer was lost.
        let Some(found) = candidate.read().await? else { return Ok(false) };
        let ours = found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&candidate.me);
        self.lease = found;
        Ok(ours)
    }

    async fn give_back(self) {
        let _ = self.until.send(Instant::now());
        let mut lease = self.lease;
        lease.metadata.managed_fields = None;
        lease.spec.get_or_insert_default().holder_identity = None;
        if let Err(error) = self.candidate.write(true, &lease).await {
            tracing::debug!(%error, "the Lease runs out by itself");
        }
    }
}

fn is_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Duration = Duration::from_secs(15);

    fn lease(holder: &str, version: &str, duration: Option<i32>) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: duration,
            // Long ago by the holder's clock: nobody looks at it.
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        });
        lease
    }

    #[test]
    fn what_a_candidate_does() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        // (at, holder, version, duration) one after the other, and the step that follows from each.
        type Read<'a> = (u64, Option<(&'a str, &'a str, Option<i32>)>);
        let seen = |reads: &[Read]| {
            let mut watch = Watch::default();
            let step = |(at, found): &Read| {
                let lease = found.map(|(holder, version, duration)| lease(holder, version, duration));
                watch.step(lease.as_ref(), OWN, after(*at))
            };
            reads.iter().map(step).collect::<Vec<_>>()
        };
        use Step::{Take, Wait};
        assert_eq!(seen(&[(0, None)]), [Take], "there is none");
        assert_eq!(seen(&[(0, Some(("", "1", None)))]), [Take], "given back");
        assert_eq!(seen(&[(0, Some(("a", "1", None)))]), [Wait], "an old renewTime says nothing");
        let quiet = [(0, Some(("a", "1", None))), (14, Some(("a", "1", None))), (15, Some(("a", "1", None)))];
        assert_eq!(seen(&quiet), [Wait, Wait, Take]);
        let renewed = [(0, Some(("a", "1", None))), (14, Some(("a", "2", None))), (28, Some(("a", "2", None)))];
        assert_eq!(seen(&renewed), [Wait, Wait, Wait]);
        let longer =
            [(0, Some(("a", "1", Some(60)))), (30, Some(("a", "1", Some(60)))), (60, Some(("a", "1", Some(60))))];
        assert_eq!(seen(&longer), [Wait, Wait, Take], "the holder's own duration counts");
        let handed = [(0, Some(("a", "1", None))), (10, Some(("b", "2", None))), (20, Some(("b", "2", None)))];
        assert_eq!(seen(&handed), [Wait, Wait, Wait], "a new holder has its whole time");
        let zero = [(0, Some(("a", "1", Some(0)))), (0, Some(("a", "1", Some(0))))];
        assert_eq!(seen(&zero), [Wait, Wait]);
    }

    #[test]
    fn terms_grow_whatever_the_clock_says() {
        let now = Timestamp::from_second(100).unwrap();
        let last = |term: &str| held(&Lease::default(), "a", OWN, term.parse().unwrap(), now);
        assert_eq!(following(&Lease::default(), now), 100);
        assert_eq!(following(&last("7"), now), 100);
        assert_eq!(following(&last("500"), now), 501);
    }

    #[test]
    fn a_renewal_is_no_transition() {
        let now = Timestamp::from_second(100).unwrap();
        let taken = held(&Lease::default(), "a", OWN, 1, now);
        let renewed = held(&taken, "a", OWN, 1, Timestamp::from_second(105).unwrap());
        let lost = held(&renewed, "b", OWN, 2, Timestamp::from_second(130).unwrap());
        let facts = |lease: &Lease| {
            let spec = lease.spec.clone().unwrap();
            (spec.lease_transitions.unwrap(), spec.acquire_time.unwrap().0.as_second())
        };
        assert_eq!([facts(&taken), facts(&renewed), facts(&lost)], [(1, 100), (1, 100), (2, 130)]);
    }
}
