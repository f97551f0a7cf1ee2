//! The definition itself: is there an order of the transactions that explains what each saw? For a dozen of them.

use std::collections::BTreeMap;

use crate::{History, Model, Op, Transaction, Value};

type State = BTreeMap<u8, Value>;

impl Transaction {
    /// The state that it leaves, if it sees in `seen` what it saw.
    fn explained(&self, seen: &State, now: &State) -> Option<State> {
        let (mut own, mut next) = (State::new(), now.clone());
        for op in &self.ops {
            let place = op.place();
            let mut value = own.get(&place).or(seen.get(&place)).cloned().unwrap_or_default();
            match op {
                Op::Read(_, read) if *read == value => continue,
                Op::Read(..) => return None,
                Op::Append(_, element) => value.push(*element),
                Op::Write(_, written) => value = written.iter().copied().collect(),
            }
            own.insert(place, value.clone());
            next.insert(place, value);
        }
        Some(next)
    }

    fn writes(&self, place: u8) -> bool {
        self.ops.iter().any(|op| op.writes() && op.place() == place)
    }
}

impl History {
    /// Whether some order of commits, with a moment that each transaction read, explains everything.
    pub fn is_explained(&self, model: Model) -> bool {
        self.goes_on(model, &mut Vec::new(), &mut vec![State::new()])
    }

    fn goes_on(&self, model: Model, order: &mut Vec<usize>, states: &mut Vec<State>) -> bool {
        let all = &self.transactions;
        let waiting: Vec<usize> = (0..all.len()).filter(|index| !order.contains(index)).collect();
        // What nobody knows of need not have happened.
        if waiting.iter().all(|index| all[*index].ended.is_none()) {
            return true;
        }
        for &index in &waiting {
            let next = &all[index];
            if waiting.iter().any(|other| all[*other].precedes(next)) {
                continue;
            }
            let now = order.len();
            let earliest = match model {
                Model::Serial => now,
                Model::Snapshot => {
                    let blocks = |earlier: &Transaction| {
                        earlier.precedes(next) || next.ops.iter().any(|op| op.writes() && earlier.writes(op.place()))
                    };
                    order.iter().rposition(|earlier| blocks(&all[*earlier])).map_or(0, |last| last + 1)
                }
            };
            let left = (earliest..=now).find_map(|seen| next.explained(&states[seen], &states[now]));
            if let Some(left) = left {
                order.push(index);
                states.push(left);
                if self.goes_on(model, order, states) {
                    return true;
                }
                order.pop();
                states.pop();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recorder;

    /// Transactions that all overlap.
    fn together(transactions: &[&[Op]]) -> History {
        let recorder = Recorder::default();
        let begun: Vec<_> = transactions.iter().map(|_| recorder.begin()).collect();
        begun.into_iter().zip(transactions).for_each(|(begun, ops)| recorder.committed(begun, ops.to_vec()));
        recorder.history()
    }

    fn in_turn(transactions: &[&[Op]]) -> History {
        let recorder = Recorder::default();
        for ops in transactions {
            recorder.committed(recorder.begin(), ops.to_vec());
        }
        recorder.history()
    }

    fn verdicts(history: &History) -> (bool, bool) {
        (history.is_explained(Model::Serial), history.is_explained(Model::Snapshot))
    }

    #[test]
    fn textbook_anomalies_are_told_apart() {
        let (empty, one) = (Vec::new(), vec![1]);
        let read = |place, value: &Value| Op::Read(place, value.clone());
        let write = |place, value| Op::Write(place, Some(value));
        let lost_update = together(&[&[read(0, &empty), write(0, 1)], &[read(0, &empty), write(0, 2)]]);
        assert_eq!(verdicts(&lost_update), (false, false));
        let write_skew = together(&[&[read(0, &empty), write(1, 1)], &[read(1, &empty), write(0, 1)]]);
        assert_eq!(verdicts(&write_skew), (false, true));
        let long_fork = together(&[
            &[write(0, 1)],
            &[write(1, 1)],
            &[read(0, &one), read(1, &empty)],
            &[read(0, &empty), read(1, &one)],
        ]);
        assert_eq!(verdicts(&long_fork), (false, false));
        let read_skew = together(&[&[write(0, 1), write(1, 1)], &[read(0, &one), read(1, &empty)]]);
        assert_eq!(verdicts(&read_skew), (false, false));
        let stale = in_turn(&[&[write(0, 1)], &[read(0, &empty)]]);
        assert_eq!(verdicts(&stale), (false, false));
        let fine = in_turn(&[&[write(0, 1)], &[read(0, &one), Op::Append(0, 2), read(0, &vec![1, 2])]]);
        assert_eq!(verdicts(&fine), (true, true));
    }

    #[test]
    fn what_nobody_knows_of_may_have_happened_or_not() {
        for seen in [vec![], vec![1]] {
            let recorder = Recorder::default();
            recorder.unknown(recorder.begin(), vec![Op::Write(0, Some(1))]);
            recorder.committed(recorder.begin(), vec![Op::Read(0, seen)]);
            assert_eq!(verdicts(&recorder.history()), (true, true));
        }
    }
}
