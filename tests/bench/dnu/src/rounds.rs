//! What becomes of rounds of drafts, of which some are right and some wrong. All rounds are gone through, each with its
//! probability: nothing is drawn.

use batos_mind::{Behaviour, agree};

/// As `toolForge` has them.
const DRAFTS: usize = 3;
const AGREEMENT: usize = 2;
/// How likely a draft is right.
pub const RIGHT: [f64; 4] = [0.3, 0.5, 0.7, 0.9];

/// A draft that may come.
#[derive(Clone, Copy)]
struct Draft<'a> {
    probability: f64,
    is_right: bool,
    /// Of one that the examples admit.
    behaviour: Option<&'a Behaviour>,
}

/// Of a task's drafts, in expectation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Wrong drafts, and those of them that go in.
    pub wrong: f64,
    pub wrong_in: f64,
    /// Rounds with two right drafts or more; those in which one goes in, and those in which a person is asked.
    pub mostly_right: f64,
    pub right_in: f64,
    pub asked: f64,
}

impl Tally {
    pub fn add(&mut self, other: &Self, weight: f64) {
        self.wrong += other.wrong * weight;
        self.wrong_in += other.wrong_in * weight;
        self.mostly_right += other.mostly_right * weight;
        self.right_in += other.right_in * weight;
        self.asked += other.asked * weight;
    }
}

/// Wrong drafts of one round are independent: each is any of `wrong`.
pub fn independent(right: [&Behaviour; 2], wrong: &[Option<Behaviour>], p: f64) -> Tally {
    let mut drafts = rights(right, p);
    let each = (1.0 - p) / wrong.len().max(1) as f64;
    let refused = wrong.iter().filter(|behaviour| behaviour.is_none()).count();
    drafts.push(Draft { probability: each * refused as f64, is_right: false, behaviour: None });
    drafts.extend(
        wrong.iter().flatten().map(|b| Draft { probability: each, is_right: false, behaviour: Some(b) }),
    );
    rounds(&drafts)
}

/// All wrong drafts of a round are the same one.
pub fn same_fault(right: [&Behaviour; 2], wrong: &[Option<Behaviour>], p: f64) -> Tally {
    let mut tally = Tally::default();
    for behaviour in wrong {
        let mut drafts = rights(right, p);
        drafts.push(Draft { probability: 1.0 - p, is_right: false, behaviour: behaviour.as_ref() });
        tally.add(&rounds(&drafts), 1.0 / wrong.len() as f64);
    }
    tally
}

fn rights(right: [&Behaviour; 2], p: f64) -> Vec<Draft<'_>> {
    right.map(|behaviour| Draft { probability: p / 2.0, is_right: true, behaviour: Some(behaviour) }).to_vec()
}

fn rounds(drafts: &[Draft<'_>]) -> Tally {
    let mut tally = Tally::default();
    for number in 0..drafts.len().pow(DRAFTS as u32) {
        let digits = (0..DRAFTS as u32).map(|digit| number / drafts.len().pow(digit) % drafts.len());
        let round: Vec<Draft<'_>> = digits.filter_map(|at| drafts.get(at).copied()).collect();
        let probability: f64 = round.iter().map(|draft| draft.probability).product();
        let wrong = round.iter().filter(|draft| !draft.is_right).count();
        let held: Vec<_> = round.iter().filter_map(|draft| Some((draft.is_right, draft.behaviour?))).collect();
        let agreement = agree(&held.iter().map(|(_, behaviour)| *behaviour).collect::<Vec<_>>());
        let asks = agreement.as_ref().is_some_and(|found| found.lone(DRAFTS, AGREEMENT).is_some());
        let taken = agreement.and_then(|found| held.get(found.chosen)).filter(|_| !asks);
        let yes = |condition: bool| if condition { probability } else { 0.0 };
        let mostly_right = 2 * wrong < DRAFTS;
        tally.wrong += probability * wrong as f64;
        tally.wrong_in += yes(taken.is_some_and(|(is_right, _)| !is_right));
        tally.mostly_right += yes(mostly_right);
        tally.right_in += yes(mostly_right && taken.is_some_and(|(is_right, _)| *is_right));
        tally.asked += yes(mostly_right && asks);
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_tells_apart_goes_in() {
        let right = Behaviour::default();
        let like = independent([&right, &right], &[Some(right.clone()), None], 0.5);
        // One of two wrong ones holds: a draft is right, holds, or is refused with 1/2, 1/4, 1/4.
        assert!((like.wrong - 1.5).abs() < 1e-9 && (like.mostly_right - 0.5).abs() < 1e-9, "{like:?}");
        assert!(like.wrong_in > 0.1 && (like.right_in + like.wrong_in) < 1.0, "{like:?}");
        let none = same_fault([&right, &right], &[None], 0.5);
        assert!(none.wrong_in == 0.0 && (none.right_in - none.mostly_right).abs() < 1e-9, "{none:?}");
    }
}
