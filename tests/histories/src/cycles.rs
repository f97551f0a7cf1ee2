//! The same question for long histories of lists, in Elle's manner: a list tells in which order it was appended to, so every
//! dependency between transactions is known, and what a model forbids is a cycle of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{History, Model, Op, Transaction};

/// Why one transaction must come before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    /// It appended what the other's element follows.
    Writes,
    /// The other saw what it appended.
    Read,
    /// It did not see what the other appended.
    Missed,
    /// It had ended when the other began.
    Time,
}

type Graph = BTreeMap<usize, BTreeMap<usize, Edge>>;

/// What one place came to.
#[derive(Default)]
struct Place {
    /// The longest list that somebody saw.
    elements: Vec<u32>,
    /// Who appended an element; for each transaction the last one is what others may see.
    writers: BTreeMap<u32, (usize, bool)>,
}

impl History {
    /// What the model forbids: `G1a` (seen, and nobody appended it), `G1b` (seen in the middle of a transaction),
    /// `lost` (appended, and not in the end), `internal`, `orders` (two lists that are no prefix of each other), and cycles
    /// by their worst kind: `G0`, `G1c`, `G-single`, `G2`. The last transaction must have read every place.
    pub fn anomalies(&self, model: Model) -> Vec<String> {
        let mut found = Vec::new();
        let places = self.places(&mut found);
        let mut edges: Vec<(usize, usize, Edge)> = Vec::new();
        for (index, transaction) in self.transactions.iter().enumerate() {
            let mut seen: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
            // Who does not know whether it happened has nothing to say.
            for op in transaction.ops.iter().filter(|_| transaction.ended.is_some()) {
                let Op::Read(at, list) = op else { continue };
                let Some(place) = places.get(at) else { continue };
                let own = |element: &u32| place.writers.get(element).is_some_and(|(writer, _)| *writer == index);
                let list: Vec<u32> = list.iter().copied().take_while(|element| !own(element)).collect();
                if let Some((writer, is_last)) = list.last().and_then(|last| place.writers.get(last)) {
                    edges.push((*writer, index, Edge::Read));
                    if !is_last {
                        found.push(format!("G1b: {transaction} saw {list:?}"));
                    }
                }
                let missed = place.elements.get(list.len()).and_then(|next| place.writers.get(next));
                edges.extend(missed.map(|(writer, _)| (index, *writer, Edge::Missed)));
                if seen.insert(*at, list.clone()).is_some_and(|before| before != list) {
                    found.push(format!("internal: {transaction}"));
                }
            }
            for (later, other) in self.transactions.iter().enumerate() {
                if transaction.precedes(other) {
                    edges.push((index, later, Edge::Time));
                }
            }
        }
        for place in places.values() {
            let writers = place.elements.iter().filter_map(|element| place.writers.get(element));
            let writers: Vec<usize> = writers.map(|(writer, _)| *writer).collect();
            edges.extend(writers.windows(2).map(|pair| (pair[0], pair[1], Edge::Writes)));
        }
        edges.retain(|(from, to, _)| from != to);
        found.extend(self.cycle(model, &edges));
        found
    }

    /// Who appended what in which order.
    fn places(&self, found: &mut Vec<String>) -> BTreeMap<u8, Place> {
        let mut places: BTreeMap<u8, Place> = BTreeMap::new();
        for (index, transaction) in self.transactions.iter().enumerate() {
            let mut own: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
            for op in &transaction.ops {
                let known = places.entry(op.place()).or_default();
                match op {
                    Op::Append(place, element) => {
                        let mine = own.entry(*place).or_default();
                        if let Some((_, is_last)) = mine.last().and_then(|last| known.writers.get_mut(last)) {
                            *is_last = false;
                        }
                        mine.push(*element);
                        known.writers.insert(*element, (index, true));
                    }
                    Op::Read(..) if transaction.ended.is_none() => {}
                    Op::Read(place, list) => {
                        if !list.ends_with(own.get(place).map_or(&[], Vec::as_slice)) {
                            found.push(format!("internal: {transaction}"));
                        }
                        let (short, long) = match list.len() > known.elements.len() {
                            true => (std::mem::replace(&mut known.elements, list.clone()), list),
                            false => (list.clone(), &known.elements),
                        };
                        if !long.starts_with(&short) {
                            found.push(format!("orders: {short:?} and {long:?} of place {place}"));
                        }
                    }
                    Op::Write(..) => panic!("lists are only appended to"),
                }
            }
        }
        for place in places.values() {
            let twice = place.elements.len() - place.elements.iter().collect::<BTreeSet<_>>().len();
            if twice > 0 {
                found.push(format!("twice: {:?}", place.elements));
            }
            let aborted = place.elements.iter().filter(|element| !place.writers.contains_key(element));
            found.extend(aborted.map(|element| format!("G1a: {element} was seen")));
            let lost = place.writers.iter().filter(|(element, (writer, _))| {
                self.transactions[*writer].ended.is_some() && !place.elements.contains(element)
            });
            found.extend(lost.map(|(element, _)| format!("lost: {element}")));
        }
        places
    }

    /// A cycle of the worst kind that the model forbids.
    fn cycle(&self, model: Model, edges: &[(usize, usize, Edge)]) -> Option<String> {
        let among =
            |kinds: &[Edge]| edges.iter().filter(|(_, _, edge)| kinds.contains(edge)).copied().collect::<Vec<_>>();
        // A moment that a transaction read lies before its commit: who missed a write began before that commit. So at most
        // one of `Missed` after something else may not close a cycle; two in a row may.
        let direct = among(&[Edge::Writes, Edge::Read, Edge::Time]);
        let missed = graph(&among(&[Edge::Missed]));
        let after = direct.iter().flat_map(|(from, through, _)| {
            missed.get(through).into_iter().flatten().map(|(to, edge)| (*from, *to, *edge))
        });
        let single: Vec<_> = direct.iter().copied().chain(after).collect();
        let all = [direct.clone(), among(&[Edge::Missed])].concat();
        let kinds = [
            ("G0", among(&[Edge::Writes])),
            ("G1c", among(&[Edge::Writes, Edge::Read])),
            ("G1c in time", direct),
            ("G-single", single),
            ("G2", if model == Model::Serial { all } else { Vec::new() }),
        ];
        kinds.into_iter().find_map(|(kind, edges)| {
            let cycle = closed(&graph(&edges))?;
            let told: Vec<String> =
                cycle.iter().map(|(from, edge)| format!("{} then by {edge:?}", self.transactions[*from])).collect();
            Some(format!("{kind}: {}", told.join("\n  ")))
        })
    }
}

impl Transaction {
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        self.ended.is_some_and(|ended| ended < other.begun)
    }
}

fn graph(edges: &[(usize, usize, Edge)]) -> Graph {
    let mut graph = Graph::new();
    for (from, to, edge) in edges {
        let known = graph.entry(*from).or_default().entry(*to).or_insert(*edge);
        *known = (*known).min(*edge);
    }
    graph
}

/// A cycle, if there is one: each of its transactions with the edge that leaves it.
fn closed(graph: &Graph) -> Option<Vec<(usize, Edge)>> {
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| follow(graph, *start, &mut Vec::new(), &mut done))
}

fn follow(
    graph: &Graph,
    at: usize,
    path: &mut Vec<(usize, Edge)>,
    done: &mut BTreeSet<usize>,
) -> Option<Vec<(usize, Edge)>> {
    if let Some(first) = path.iter().position(|(on, _)| *on == at) {
        return Some(path[first..].to_vec());
    }
    if done.contains(&at) {
        return None;
    }
    for (to, edge) in graph.get(&at).into_iter().flatten() {
        path.push((at, *edge));
        let found = follow(graph, *to, path, done);
        if found.is_some() {
            return found;
        }
        path.pop();
    }
    done.insert(at);
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Dice, History, Kind, Model, Op, Plan, Recorder, Size, Step, Value};

    /// A store that may forget its promises: it lets transactions read old moments and write over what they have not seen.
    fn played(seed: u64) -> History {
        let mut dice = Dice::new(seed);
        let size = Size { workers: 3, each: 2, places: 2 };
        let mut workers = Plan::draw(Kind::Lists, size, seed).workers;
        let (mut states, recorder) = (vec![BTreeMap::<u8, Value>::new()], Recorder::default());
        let mut open = vec![None; size.workers];
        while workers.iter().any(|worker| !worker.is_empty()) {
            let worker = dice.below(3) as usize;
            let Some((begun, seen)) = open[worker].take() else {
                let back = if dice.below(6) == 0 { dice.below(3) as usize } else { 0 };
                open[worker] = Some((recorder.begin(), (states.len() - 1).saturating_sub(back)));
                continue;
            };
            let Some(steps) = workers[worker].pop() else { continue };
            let (mut own, mut next) = (states[seen].clone(), states.last().unwrap().clone());
            let mut ops = Vec::new();
            let (is_careless, overwrites) = (dice.below(4) == 0, dice.below(8) == 0);
            let is_overtaken =
                |place: &u8| states[seen..].iter().any(|later| later.get(place) != states[seen].get(place));
            if !is_careless && steps.iter().any(|step| matches!(step, Step::Append(place, _) if is_overtaken(place))) {
                continue;
            }
            for step in steps {
                match step {
                    Step::Append(place, value) => {
                        own.entry(place).or_default().push(value);
                        match overwrites {
                            true => drop(next.insert(place, own[&place].clone())),
                            false => next.entry(place).or_default().push(value),
                        }
                        ops.push(Op::Append(place, value));
                    }
                    step => {
                        let place = step.place();
                        ops.push(Op::Read(place, own.get(&place).cloned().unwrap_or_default()));
                    }
                }
            }
            states.push(next);
            recorder.committed(begun, ops);
        }
        let last = states.last().unwrap();
        let all = (0..size.places).map(|place| Op::Read(place, last.get(&place).cloned().unwrap_or_default()));
        recorder.committed(recorder.begin(), all.collect());
        recorder.history()
    }

    #[test]
    fn cycles_and_orders_agree() {
        let (mut serial, mut snapshot, mut worse) = (0, 0, 0);
        for seed in 0..4000 {
            let history = played(seed);
            let explained = [Model::Serial, Model::Snapshot].map(|model| {
                let (found, explained) = (history.anomalies(model), history.is_explained(model));
                assert_eq!(found.is_empty(), explained, "seed {seed} {model:?}: {found:#?}\n{history}");
                explained
            });
            match explained {
                [true, _] => serial += 1,
                [_, true] => snapshot += 1,
                _ => worse += 1,
            }
        }
        assert!(serial > 300 && snapshot > 30 && worse > 300, "{serial} {snapshot} {worse}");
    }
}
