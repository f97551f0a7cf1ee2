//! Random concurrent turns of several workers on one universe: lists, registers of which one is a method that a child
//! inherits, and objects that come and go.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use batos_covenant::{ApplyCommand, PrototypeDefinition, Wire};
use batos_graph::ObjectId;
use batos_histories::{Dice, History, Kind, Model, Op, Plan, Recorder, Size, Step, Value, runs};
use batos_uvm::{
    image,
    universe::{Universe, UniverseError, Work},
};

use super::universe::{answer, apply, data, message};

/// The place among registers whose value is a method.
const METHOD: u8 = 0;
/// What all accounts of a history hold together.
const MONEY: u64 = 400;
const ACCOUNTS: u8 = 4;

/// Workers of one universe; each has caches of its own.
#[derive(Clone)]
pub struct Workers {
    universes: Vec<Universe>,
    /// Histories so far: each has objects of its own.
    count: Arc<AtomicU64>,
}

impl Workers {
    pub fn new(universes: Vec<Universe>) -> Self {
        Self { universes, count: Arc::default() }
    }

    fn worker(&self, index: usize) -> &Universe {
        &self.universes[index % self.universes.len()]
    }

    /// As many histories as there is time for.
    pub async fn hold(&self, model: Model) {
        for seed in runs() {
            for kind in [Kind::Lists, Kind::Registers, Kind::Switches] {
                let small = self.history(kind, Plan::SMALL, seed).await;
                assert!(small.is_explained(model), "BATOS_HISTORIES_SEED={seed} {kind:?} {model:?}\n{small}");
            }
            let large = self.history(Kind::Lists, Size { each: 15, ..Plan::LARGE }, seed).await;
            let anomalies = large.anomalies(model);
            assert!(anomalies.is_empty(), "BATOS_HISTORIES_SEED={seed} {model:?}\n{}", anomalies.join("\n"));
            self.transfers(seed).await;
        }
    }

    async fn history(&self, kind: Kind, size: Size, seed: u64) -> History {
        let places = Places { number: self.count.fetch_add(1, Ordering::Relaxed), kind };
        places.make(&self.universes[0], size.places).await;
        let recorder = Arc::new(Recorder::default());
        let workers: Vec<_> = Plan::draw(kind, size, seed)
            .workers
            .into_iter()
            .enumerate()
            .map(|(index, transactions)| {
                let (universe, recorder) = (self.worker(index).clone(), recorder.clone());
                tokio::spawn(async move {
                    for steps in transactions {
                        places.transact(&universe, &steps, &recorder).await;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let all: Vec<Step> = (0..size.places).map(Step::Read).collect();
        places.transact(self.worker(0), &all, &recorder).await;
        Arc::into_inner(recorder).unwrap().history()
    }

    /// Money goes from account to account; whoever counts it meanwhile finds all of it.
    async fn transfers(&self, seed: u64) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let account = move |index: u64| format!("account{number}x{index}");
        for index in 0..ACCOUNTS.into() {
            let share = MONEY / u64::from(ACCOUNTS);
            apply(self.worker(0), &account(index), vec![data("n", share.into())]).await.unwrap();
        }
        let sum = (0..ACCOUNTS.into()).map(|index| format!("{} n", account(index))).collect::<Vec<_>>().join(" + ");
        let workers: Vec<_> = (0..4)
            .map(|index| {
                let (universe, sum) = (self.worker(index).clone(), sum.clone());
                let mut dice = Dice::new(seed.wrapping_add(index as u64));
                tokio::spawn(async move {
                    for _ in 0..10 {
                        let (from, to) = (dice.below(ACCOUNTS.into()), dice.below(ACCOUNTS.into()));
                        let (from, to, amount) = (account(from), account(to), dice.below(90));
                        let rich = format!("{from} n: {from} n - {amount}. {to} n: {to} n + {amount}");
                        let _ = eval(&universe, &format!("{from} n >= {amount} ifTrue: [ {rich} ]. nil")).await;
                        if let Some(found) = eval(&universe, &sum).await {
                            assert_eq!(found, MONEY, "BATOS_HISTORIES_SEED={seed}");
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        for universe in &self.universes {
            assert_eq!(eval(universe, &sum).await.unwrap(), MONEY, "BATOS_HISTORIES_SEED={seed}");
        }
    }
}

/// The objects of one history.
#[derive(Clone, Copy)]
struct Places {
    number: u64,
    kind: Kind,
}

impl Places {
    fn name(&self, place: u8) -> String {
        format!("place{}x{place}", self.number)
    }

    fn is_method(&self, place: u8) -> bool {
        self.kind == Kind::Registers && place == METHOD
    }

    async fn make(&self, universe: &Universe, count: u8) {
        for place in 0..count {
            let name = self.name(place);
            if self.is_method(place) {
                apply(universe, &format!("{name}p"), vec![]).await.unwrap();
                assert!(self.define(universe, place, "").await);
                let definition =
                    PrototypeDefinition { parents: vec![format!("{name}p")], ..PrototypeDefinition::default() };
                let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
                let work = Work::Apply { name: name.clone(), apply };
                answer(universe, &message(ObjectId::of_name(&name), "", work)).await.unwrap().unwrap();
            } else {
                let empty = if self.kind == Kind::Switches { Wire::Null } else { "".into() };
                apply(universe, &name, vec![data("v", empty)]).await.unwrap();
            }
        }
        apply(universe, "cell", vec![data("v", "".into())]).await.unwrap();
    }

    /// Gives the prototype of a place another method; whether it came to it.
    async fn define(&self, universe: &Universe, place: u8, value: &str) -> bool {
        let work = Work::CreateMethod { name: "v".to_owned(), source: format!("v = ( '{value}' )") };
        let message = message(ObjectId::of_name(&format!("{}p", self.name(place))), "", work);
        carried_out(universe.deliver(&message).await)
    }

    async fn transact(&self, universe: &Universe, steps: &[Step], recorder: &Recorder) {
        let definition = steps.iter().find(|step| matches!(step, Step::Write(place, _) if self.is_method(*place)));
        if let Some(Step::Write(place, value)) = definition {
            // A message of its own, and so a transaction of its own.
            let begun = recorder.begin();
            if self.define(universe, *place, &format!(" {value}")).await {
                recorder.committed(begun, vec![Op::Write(*place, Some(*value))]);
            }
            return;
        }
        let source: String = steps.iter().map(|step| self.statement(step)).collect();
        let begun = recorder.begin();
        let Some(told) = eval(universe, &format!("| r | r := ''. {source} r")).await else { return };
        let told = told.as_str().unwrap().split('/').skip(1);
        let values = told.map(|value| value.split_whitespace().map(|word| word.parse().unwrap()).collect::<Value>());
        let mut ops = Vec::new();
        for (step, value) in steps.iter().zip(values) {
            match step {
                Step::Read(place) => ops.push(Op::Read(*place, value)),
                Step::Append(place, element) => ops.push(Op::Append(*place, *element)),
                Step::Write(place, written) => ops.push(Op::Write(*place, Some(*written))),
                Step::Switch(place, new) => {
                    let turned = value.is_empty().then_some(*new);
                    ops.extend([Op::Read(*place, value), Op::Write(*place, turned)]);
                }
            }
        }
        assert!(ops.len() >= steps.len(), "{steps:?} answered too little: {ops:?}");
        recorder.committed(begun, ops);
    }

    /// A statement that carries out a step; it adds what it saw to `r`, after a `/`.
    fn statement(&self, step: &Step) -> String {
        let name = self.name(step.place());
        match (step, self.kind) {
            (Step::Read(_), Kind::Switches) => {
                format!("r := r , '/' , ({name} v isNil ifTrue: [ '' ] ifFalse: [ {name} v v ]). ")
            }
            (Step::Read(_), _) => format!("r := r , '/' , {name} v. "),
            (Step::Append(_, element), _) => format!("r := r , '/'. {name} v: {name} v , ' {element}'. "),
            (Step::Write(_, value), _) => format!("r := r , '/'. {name} v: ' {value}'. "),
            (Step::Switch(_, value), _) => format!(
                "{name} v isNil ifTrue: [ r := r , '/'. {name} v: cell clone. {name} v v: ' {value}' ] \
                 ifFalse: [ r := r , '/' , {name} v v. {name} v: nil ]. "
            ),
        }
    }
}

/// What the statements answer; nothing if the turn lost against others to the end.
async fn eval(universe: &Universe, source: &str) -> Option<Wire> {
    let message = message(image::GENESIS, "", Work::Eval { source: source.to_owned(), made: None });
    match answer(universe, &message).await {
        Ok(answer) => Some(answer.unwrap()),
        Err(error) if error.contains("lost against") => None,
        Err(error) => panic!("{source}: {error}"),
    }
}

fn carried_out<T>(delivered: Result<T, UniverseError>) -> bool {
    match delivered {
        Ok(_) => true,
        Err(UniverseError::Contended { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}
