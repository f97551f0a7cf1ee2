//! What an object understands that is like what it was sent: for whoever mistyped.

use std::collections::BTreeSet;

use batos_graph::{ObjectId, SlotKind, Value};

use super::{Universe, UniverseError, View};

/// Objects that are looked through.
const MAX_CHAIN: usize = 64;
/// Longest selector that is compared, in bytes.
const LONGEST: usize = 64;
/// Selectors that are told.
const MOST: usize = 3;

impl Universe {
    /// Selectors that `receiver` understands, the most similar first: with as many arguments, and at most one letter in three
    /// added, left out or another, but no more than two, and one in short ones.
    pub async fn similar(&self, receiver: ObjectId, selector: &str) -> Result<Vec<String>, UniverseError> {
        let view = View::new(self);
        let (mut understood, mut chain) = (BTreeSet::new(), vec![receiver]);
        let mut next = 0;
        while let Some(id) = chain.get(next).copied() {
            next += 1;
            let Some((_, record)) = view.object(id).await? else { continue };
            for slot in &record.slots {
                match &slot.kind {
                    SlotKind::Parent(Value::Ref(parent)) if !chain.contains(parent) && chain.len() < MAX_CHAIN => {
                        chain.push(*parent);
                    }
                    SlotKind::Assignable(_) => drop(understood.insert(format!("{}:", slot.name))),
                    _ => {}
                }
                understood.insert(slot.name.clone());
            }
        }
        Ok(nearest(understood, selector))
    }
}

fn nearest(understood: BTreeSet<String>, selector: &str) -> Vec<String> {
    let arity = |selector: &str| selector.matches(':').count();
    let most = (selector.chars().count() / 3).clamp(1, 2);
    let is_near = |other: &String| {
        let length = other.len().abs_diff(selector.len());
        selector.len() <= LONGEST && length <= 4 * most && arity(other) == arity(selector) && !other.starts_with('_')
    };
    let near = understood.into_iter().filter(is_near).map(|other| (distance(&other, selector), other));
    let mut near: Vec<(usize, String)> = near.filter(|(distance, _)| *distance <= most).collect();
    near.sort();
    near.into_iter().take(MOST).map(|(_, selector)| selector).collect()
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, x) in a.chars().enumerate() {
        let mut next = vec![above + 1];
        for ((y, pair), left_end) in b.iter().zip(row.windows(2)).zip(0..) {
            let [diagonal, up] = pair else { continue };
            let left = next.get(left_end).copied().unwrap_or_default();
            next.push((diagonal + usize::from(x != *y)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_has_as_many_arguments_and_few_other_letters() {
        let understood = ["deposit:", "deposits", "balance", "at:put:", "+", "at:", "as", "_deposit:"];
        for (selector, wanted) in [
            ("deposti:", vec!["deposit:"]),
            ("Deposit:", vec!["deposit:"]),
            ("deposit", vec!["deposits"]),
            ("balanec", vec!["balance"]),
            ("bal", vec![]),
            ("at:putt:", vec!["at:put:"]),
            ("ay:", vec!["at:"]),
            ("ax", vec!["as"]),
            ("withdraw:", vec![]),
            (&"x".repeat(300), vec![]),
        ] {
            let understood = understood.iter().map(|selector| (*selector).to_owned()).collect();
            assert_eq!(nearest(understood, selector), wanted, "{selector}");
        }
        for (a, b, wanted) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!((distance(a, b), distance(b, a)), (wanted, wanted), "{a} {b}");
        }
    }
}
