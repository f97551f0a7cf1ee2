//! Conditions of a status. Types and reasons are stable: scripts wait for them.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

pub const READY: &str = "Ready";
/// It comes with time. As kstatus wants it, only there while it is so.
const RECONCILING: &str = "Reconciling";
/// Somebody should look; only there while it is so.
const STALLED: &str = "Stalled";
/// A Universe's bus takes the operator's questions.
pub const BUS_REACHABLE: &str = "BusReachable";
/// A Universe's workers reach its store.
pub const STORE_REACHABLE: &str = "StoreReachable";
/// A Prototype's slots are as the definition has them.
pub const IN_SYNC: &str = "InSync";
/// A Facet has a pod.
pub const PLACED: &str = "Placed";
/// The pod's engine has the adapter.
pub const LOADED: &str = "Loaded";

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    Good,
    /// Nothing is wrong; it comes with time or with another object.
    Waiting,
    /// Somebody should look.
    Bad,
}

/// What a plan says about one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub condition: &'static str,
    pub outlook: Outlook,
    /// One word, for programs.
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    pub fn new(condition: &'static str, outlook: Outlook, reason: &'static str, message: impl Into<String>) -> Self {
        Self { condition, outlook, reason, message: message.into() }
    }

    pub fn ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(READY, Outlook::Good, reason, message)
    }

    pub fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(READY, Outlook::Waiting, reason, message)
    }

    pub fn bad(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(READY, Outlook::Bad, reason, message)
    }
}

/// Kubernetes refuses longer messages.
const MAX_MESSAGE: usize = 4096;

/// The conditions that say `verdicts`, and what kstatus wants beside [`READY`]. The time of a condition moves only when its
/// status does.
pub fn conditions(old: &[Condition], verdicts: &[Verdict], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let condition = |kind: &str, holds: bool, verdict: &Verdict| {
        let status = if holds { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind && c.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: truncated(&verdict.message, MAX_MESSAGE),
            observed_generation: generation,
            last_transition_time: before.map_or_else(|| Time(seconds(now)), |c| c.last_transition_time.clone()),
        }
    };
    let told = verdicts.iter().map(|verdict| condition(verdict.condition, verdict.outlook == Outlook::Good, verdict));
    let ready = verdicts.iter().filter(|verdict| verdict.condition == READY);
    let beside = ready.filter_map(|verdict| match verdict.outlook {
        Outlook::Good => None,
        Outlook::Waiting => Some(condition(RECONCILING, true, verdict)),
        Outlook::Bad => Some(condition(STALLED, true, verdict)),
    });
    told.chain(beside).collect()
}

/// The API server keeps whole seconds.
fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// At most `bytes` bytes of a text.
pub fn truncated(text: &str, bytes: usize) -> String {
    match text.len() <= bytes {
        true => text.to_owned(),
        false => {
            let end = (0..=bytes.saturating_sub(3)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            format!("{}…", text.get(..end).unwrap_or_default())
        }
    }
}

pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// One of those that say how the whole object stands.
pub fn is_summary(condition: &Condition) -> bool {
    [READY, RECONCILING, STALLED].contains(&condition.type_.as_str())
}

pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = conditions(&[], &[Verdict::waiting("A", "")], Some(1), at(1));
        let second = conditions(&first, &[Verdict::bad("B", "why")], Some(2), at(2));
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("B", Some(2)));
        let third = conditions(&second, &[Verdict::ready("C", "")], Some(2), at(3));
        assert_eq!(third[0].last_transition_time, Time(at(3)));
        assert!(is_true(&third, READY));
        let types = |conditions: &[Condition]| conditions.iter().map(|c| c.type_.clone()).collect::<Vec<_>>();
        assert_eq!(types(&first), [READY, RECONCILING]);
        assert_eq!(types(&second), [READY, STALLED]);
        assert_eq!(types(&third), [READY]);
        assert_eq!((second[1].status.as_str(), second[1].reason.as_str()), ("True", "B"));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(truncated("äää", 5), "ä…");
        assert_eq!(truncated("abc", 3), "abc");
    }
}
