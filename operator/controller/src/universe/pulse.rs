//! What a universe says of itself, and whether its bus and its store answer. It is asked again and again, for it tells
//! nobody.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use batos_covenant::{AccessClass, Command, ErrorKind, Reply, Subject, UniverseInfo};
use batos_crds::{Universe, UniversePhase, UniverseStatus, VersionsStatus};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use tokio::time::Instant;

use super::reach;
use crate::{
    condition::{BUS_REACHABLE, Outlook, STORE_REACHABLE, Verdict},
    context::{Context, place},
    error::Error,
    proposal::ANY,
};

/// What came of the last question.
#[derive(Debug, Clone, PartialEq)]
pub enum Pulse {
    /// Nothing, from a worker of a batos that does not know the question.
    Answers(Option<UniverseInfo>),
    /// No worker was there to be asked, the bus is.
    BusAnswers,
    StoreFails(String),
    BusFails(String),
    /// The bus is there, workers are, and none answers.
    Silent(String),
    /// The operator has no login there that it may read: it cannot tell, and the workers' readiness is all that is known.
    NotAsked,
}

/// The last pulse of each universe, by uid; and what its children were applied for, so that a look at the pulse writes
/// nothing.
pub struct Pulses {
    every: Duration,
    known: Mutex<HashMap<String, (Instant, Pulse)>>,
    applied: Mutex<HashMap<String, String>>,
}

impl Pulses {
    pub fn new(every: Duration) -> Self {
        Self { every, known: Mutex::default(), applied: Mutex::default() }
    }

    pub fn forget(&self, uid: &str) {
        if let Ok(mut known) = self.known.lock() {
            known.remove(uid);
        }
        if let Ok(mut applied) = self.applied.lock() {
            applied.remove(uid);
        }
    }

    /// Whether children were applied for this very state of things, by this process.
    pub fn is_applied(&self, uid: &str, state: &str) -> bool {
        self.applied.lock().is_ok_and(|applied| applied.get(uid).is_some_and(|known| known == state))
    }

    pub fn applied(&self, uid: String, state: String) {
        if let Ok(mut applied) = self.applied.lock() {
            applied.insert(uid, state);
        }
    }

    /// One that is young enough, and was asked of a worker if there is one.
    fn recent(&self, uid: &str, has_workers: bool) -> Option<Pulse> {
        let known = self.known.lock().ok()?;
        let (at, pulse) = known.get(uid)?;
        let answers_it = !has_workers || *pulse != Pulse::BusAnswers;
        (answers_it && at.elapsed() < self.every).then(|| pulse.clone())
    }

    fn note(&self, uid: String, pulse: Pulse) {
        if let Ok(mut known) = self.known.lock() {
            known.insert(uid, (Instant::now(), pulse));
        }
    }
}

/// Asks, unless that was done just now.
pub async fn feel(universe: &Universe, has_workers: bool, context: &Context) -> Result<Pulse, Error> {
    let uid = universe.uid().unwrap_or_default();
    if let Some(pulse) = context.pulses.recent(&uid, has_workers) {
        return Ok(pulse);
    }
    let (namespace, name) = place(&universe.metadata)?;
    let reach = reach(universe, &context.settings);
    if let Err(why) = context.url(namespace, &reach).await {
        tracing::debug!(universe = name, why, "not asked how it is");
        context.pulses.note(uid, Pulse::NotAsked);
        return Ok(Pulse::NotAsked);
    }
    let answered = match Subject::new(&reach.root, name, AccessClass::Adm, ANY, "info") {
        Ok(subject) if has_workers => context.ask(namespace, &reach, &subject, &Command::Info).await,
        Ok(_) => Err(String::new()),
        Err(error) => Err(error.to_string()),
    };
    let pulse = match answered {
        Ok(Reply::Ok(reply)) => Pulse::Answers(serde_json::from_value(reply.value).ok()),
        Ok(Reply::Error { error }) => match error.kind {
            ErrorKind::BadRequest => Pulse::Answers(None),
            ErrorKind::Unavailable => Pulse::StoreFails(error.message),
            _ => Pulse::Silent(error.message),
        },
        Err(why) => match context.reaches(namespace, &reach).await {
            Err(error) => Pulse::BusFails(error),
            Ok(()) if has_workers => Pulse::Silent(why),
            Ok(()) => Pulse::BusAnswers,
        },
    };
    context.pulses.note(uid, pulse.clone());
    Ok(pulse)
}

/// What a status tells of a pulse.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub verdicts: Vec<Verdict>,
    pub phase: UniversePhase,
    pub objects: Option<i64>,
    pub objects_counted: Option<Time>,
    pub versions: Option<VersionsStatus>,
}

/// `verdict` is that on the workers. What is not known now stays as it was told last, and what has not changed too, so that
/// an idle universe writes nothing.
pub fn tell(verdict: Verdict, pulse: Option<&Pulse>, before: &UniverseStatus) -> Told {
    let good = |condition, reason| Verdict::new(condition, Outlook::Good, reason, "");
    let bad = |condition, reason, why: &String| Verdict::new(condition, Outlook::Bad, reason, why);
    let mut told = Told {
        verdicts: Vec::new(),
        phase: UniversePhase::Running,
        objects: before.objects,
        objects_counted: before.objects_counted.clone(),
        versions: before.versions.clone(),
    };
    let mut ready = verdict;
    let mut spoil = |because: Verdict| {
        // Workers without a bus are not ready: that is why.
        if ready.outlook == Outlook::Good || ready.reason == "Starting" {
            ready = because;
        }
    };
    match pulse {
        None | Some(Pulse::NotAsked) => {}
        Some(Pulse::Answers(info)) => {
            told.verdicts.extend([good(BUS_REACHABLE, "Answers"), good(STORE_REACHABLE, "Answers")]);
            if let Some(info) = info {
                told.versions = Some(VersionsStatus { batos: info.batos.clone(), image: info.image.clone() });
            }
            let counted = info.as_ref().and_then(|info| info.objects);
            let objects = counted.and_then(|counted| i64::try_from(counted.count).ok());
            if let (Some(counted), Some(objects)) = (counted, objects)
                && told.objects != Some(objects)
            {
                told.objects = Some(objects);
                told.objects_counted =
                    i64::try_from(counted.at).ok().and_then(|at| Timestamp::from_second(at).ok()).map(Time);
            }
        }
        Some(Pulse::BusAnswers) => told.verdicts.push(good(BUS_REACHABLE, "Answers")),
        Some(Pulse::StoreFails(why)) => {
            told.verdicts.extend([good(BUS_REACHABLE, "Answers"), bad(STORE_REACHABLE, "Fails", why)]);
            spoil(Verdict::bad("StoreUnreachable", why));
        }
        Some(Pulse::BusFails(why)) => {
            told.verdicts.push(bad(BUS_REACHABLE, "Fails", why));
            spoil(Verdict::bad("BusUnreachable", why));
        }
        Some(Pulse::Silent(why)) => {
            told.verdicts.push(good(BUS_REACHABLE, "Answers"));
            spoil(Verdict::waiting("Unanswered", why));
        }
    }
    told.phase = match ready.outlook {
        Outlook::Good => UniversePhase::Running,
        Outlook::Waiting => UniversePhase::Pending,
        Outlook::Bad => UniversePhase::Failing,
    };
    // First: programs that read conditions by their place expect it there.
    told.verdicts.insert(0, ready);
    told
}

#[cfg(test)]
mod tests {
    use batos_covenant::ObjectCount;

    use super::*;

    fn info(count: u64, at: u64) -> Pulse {
        let objects = Some(ObjectCount { count, at });
        Pulse::Answers(Some(UniverseInfo { batos: "1.2.3".into(), image: "abc".into(), objects }))
    }

    #[test]
    fn each_pulse_is_told_in_conditions_and_spoils_what_is_ready() {
        let serving = || Verdict::ready("Serving", "1 of 1 workers ready");
        let failing = || Verdict::bad("PodsFailing", "a pod");
        let why = || "why".to_owned();
        // The workers' verdict, the pulse; phase, reason of Ready, whether bus and store are reached.
        let table = [
            (serving(), None, UniversePhase::Running, "Serving", None, None),
            (serving(), Some(info(3, 9)), UniversePhase::Running, "Serving", Some(true), Some(true)),
            (serving(), Some(Pulse::Answers(None)), UniversePhase::Running, "Serving", Some(true), Some(true)),
            (
                serving(),
                Some(Pulse::StoreFails(why())),
                UniversePhase::Failing,
                "StoreUnreachable",
                Some(true),
                Some(false),
            ),
            (serving(), Some(Pulse::BusFails(why())), UniversePhase::Failing, "BusUnreachable", Some(false), None),
            (serving(), Some(Pulse::Silent(why())), UniversePhase::Pending, "Unanswered", Some(true), None),
            (failing(), Some(Pulse::BusFails(why())), UniversePhase::Failing, "PodsFailing", Some(false), None),
            (
                Verdict::waiting("Starting", ""),
                Some(Pulse::BusFails(why())),
                UniversePhase::Failing,
                "BusUnreachable",
                Some(false),
                None,
            ),
            (
                Verdict::waiting("ScaledToZero", ""),
                Some(Pulse::BusAnswers),
                UniversePhase::Pending,
                "ScaledToZero",
                Some(true),
                None,
            ),
        ];
        for (verdict, pulse, phase, reason, bus, store) in table {
            let told = tell(verdict, pulse.as_ref(), &UniverseStatus::default());
            let is = |condition: &str| {
                told.verdicts.iter().find(|v| v.condition == condition).map(|v| v.outlook == Outlook::Good)
            };
            assert_eq!((told.phase, told.verdicts[0].reason), (phase, reason), "{pulse:?}");
            assert_eq!((is(BUS_REACHABLE), is(STORE_REACHABLE)), (bus, store), "{pulse:?}");
        }
    }

    #[test]
    fn what_does_not_change_keeps_its_time_and_what_is_not_known_stays() {
        let tell = |pulse: Pulse, before: &UniverseStatus| {
            let told = super::tell(Verdict::ready("Serving", ""), Some(&pulse), before);
            UniverseStatus {
                objects: told.objects,
                objects_counted: told.objects_counted,
                versions: told.versions,
                ..UniverseStatus::default()
            }
        };
        let first = tell(info(3, 100), &UniverseStatus::default());
        assert_eq!((first.objects, first.versions.clone().unwrap().batos.as_str()), (Some(3), "1.2.3"));
        assert_eq!(tell(info(3, 700), &first), first);
        assert_eq!(tell(Pulse::BusFails("down".into()), &first), first);
        let second = tell(info(4, 700), &first);
        assert_eq!(second.objects_counted.unwrap().0.as_second(), 700);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pulse_is_felt_again_after_a_while_and_when_there_is_more_to_ask() {
        let pulses = Pulses::new(Duration::from_secs(30));
        pulses.note("u".into(), Pulse::BusAnswers);
        assert_eq!(pulses.recent("u", false), Some(Pulse::BusAnswers));
        assert_eq!(pulses.recent("u", true), None);
        pulses.note("u".into(), info(1, 1));
        assert!(pulses.recent("u", true).is_some());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(pulses.recent("u", true), None);
    }
}
