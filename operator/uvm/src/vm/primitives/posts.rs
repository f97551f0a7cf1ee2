//! Messages that leave the turn: each starts a turn of its own, at once or after a while.

use super::{Entry, Result, answer, arg, array, body, object, text};
use crate::vm::{
    error::{failed, limit},
    heap::{Body, OBJECT_BYTES},
    machine::Machine,
    post::{Posted, TimerId},
    value::Value,
};

/// Shortest wait of a timer, in milliseconds: an object that sets itself timers must not take a whole worker.
const MIN_DELAY: i64 = 10;
/// Longest wait, in milliseconds: ten years.
const MAX_DELAY: i64 = 10 * 366 * 24 * 3600 * 1000;

pub(super) const TABLE: &[Entry] = &[
    ("_Post:Arguments:", |m, me, a| {
        let posted = posted(m, me, a, None)?;
        add(m, posted)?;
        answer(Value::NIL)
    }),
    ("_Post:Arguments:After:", |m, me, a| {
        let delay = milliseconds(m, arg(a, 2))?;
        let timer = timer(m, delay);
        let posted = posted(m, me, a, Some(timer))?;
        let token = m.heap.string(&timer.to_string())?;
        add(m, posted)?;
        answer(token)
    }),
    ("_CancelTimer:", |m, me, a| {
        let token = text(m, arg(a, 0))?;
        let Ok(timer) = token.parse::<TimerId>() else { return failed(format!("{token:?} is no timer")) };
        let handle = object(m, me)?;
        let Some(id) = m.heap.id_of(handle, &m.seed) else { return failed("only an object has timers") };
        let here = m.posts.iter().position(|post| post.receiver == me && post.timer == Some(timer));
        match here {
            Some(place) => drop(m.posts.remove(place)),
            None => m.cancelled.push((id, timer)),
        }
        answer(me)
    }),
];

fn posted(m: &mut Machine, me: Value, a: &[Value], timer: Option<TimerId>) -> Result<Posted> {
    let selector = text(m, arg(a, 0))?.to_owned();
    let arguments = array(m, arg(a, 1))?.to_vec();
    if super::arity(&selector) != Some(arguments.len()) {
        return failed(format!("{selector:?} with {} arguments is no message", arguments.len()));
    }
    let is_object = me.as_object().is_some()
        && !matches!(body(m, me)?, Body::Str(_) | Body::Big(_) | Body::Fraction(_) | Body::Context);
    if !is_object {
        return failed(format!("{} is a value: only an object gets messages of its own", m.describe(me)));
    }
    Ok(Posted { receiver: me, selector, arguments, timer })
}

fn add(m: &mut Machine, posted: Posted) -> Result<()> {
    if m.limits.hops == 0 {
        return limit("the chain of messages that led to this turn is too long to go on");
    }
    if m.posts.len() >= m.limits.fan_out {
        return limit(format!("a turn may send at most {} messages of their own", m.limits.fan_out));
    }
    m.heap.charge_for_good(OBJECT_BYTES + posted.selector.len() + posted.arguments.len() * 8)?;
    m.timers += u64::from(posted.timer.is_some());
    m.posts.push(posted);
    Ok(())
}

fn milliseconds(m: &Machine, value: Value) -> Result<i64> {
    match value.as_int() {
        Some(n) if (0..=MAX_DELAY).contains(&n) => Ok(n.max(MIN_DELAY)),
        _ => {
            body(m, value)?;
            let wanted = "a wait is a number of milliseconds, from 0 to ten years";
            failed(format!("{} is no wait: {wanted}", m.describe(value)))
        }
    }
}

/// Its number makes it unique in the turn, the seed in the universe.
fn timer(m: &Machine, delay: i64) -> TimerId {
    let hash = blake3::keyed_hash(&m.seed, format!("timer {}", m.timers).as_bytes());
    let nonce = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    TimerId { due: m.now.saturating_add(delay.unsigned_abs()), nonce }
}
