//! `hack/bench dnu`: how well the Crucible tells right methods from wrong ones. Tasks of HumanEval become prototypes that
//! lack a selector and whose manifests hold the first examples; right methods and wrong ones are recorded or made here.
//! First each is judged alone, then rounds of three drafts, as `toolForge` asks for them: drafts that are right with some
//! probability, by one of two who wrote them independently, and else wrong.
//!
//! `hack/bench dnu --provider URL MODEL [TASKS]` asks a model about the tasks instead.

mod mutants;
mod provider;
mod rounds;
mod tasks;
mod trial;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use batos_bench_store::Failure;
use batos_covenant::Wire;
use batos_graph::RedbStore;
use batos_mind::{Inputs, agree};
use batos_uvm::universe::Universe;

use mutants::{Operator, mutants};
use tasks::{Pair, Recorded, recorded};
use trial::Trial;

/// How many examples are visible.
const VISIBLE: [usize; 5] = [0, 1, 3, 5, usize::MAX];
/// Where the gate is, and what it asks for.
const GATE: usize = 5;
const MOST_ACCEPTED: f64 = 0.02;
/// When so many drafts are right, or more.
const GATE_RIGHT: f64 = 0.5;
const LEAST_TASKS: usize = 60;
const LEAST_MUTANTS: usize = 300;
/// A method that differs from the right one on none of so many inputs counts as right. They are drawn so often at most.
const INPUTS: usize = 200;
const MOST_DRAWS: usize = 4_000;
/// The operator of wrong answers that people wrote.
const WRITTEN: Operator = "plausible";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench dnu: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Accepted ones among all.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    accepted: usize,
    all: usize,
}

impl Share {
    fn count(&mut self, accepted: bool) {
        self.accepted += usize::from(accepted);
        self.all += 1;
    }

    fn rate(self) -> f64 {
        self.accepted as f64 / self.all.max(1) as f64
    }

    /// Wilson's interval at 95 %.
    fn interval(self) -> (f64, f64) {
        const Z: f64 = 1.959_964;
        let (n, p) = (self.all.max(1) as f64, self.rate());
        let middle = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        ((middle - half) / scale, (middle + half) / scale)
    }
}

/// What became of all candidates, with so many examples visible.
#[derive(Debug, Default)]
struct Column {
    /// Tasks whose right method was refused.
    refused: Vec<String>,
    wrong: BTreeMap<Operator, Share>,
    /// Wrong ones that the examples let through, and those of them that do what the right one does on all messages.
    alike: Share,
    /// Tasks whose right methods do not do the same.
    apart: Vec<String>,
    /// By `rounds::RIGHT`: wrong drafts are independent, or all of a round the same one.
    rounds: [[rounds::Tally; 2]; rounds::RIGHT.len()],
}

impl Column {
    fn all(&self) -> Share {
        let add =
            |sum: Share, share: &Share| Share { accepted: sum.accepted + share.accepted, all: sum.all + share.all };
        self.wrong.values().fold(Share::default(), add)
    }
}

#[derive(Debug, Default)]
struct Tally {
    tasks: usize,
    mutants: usize,
    written: usize,
    equivalent: usize,
    /// Tasks for which fewer than `INPUTS` different inputs were found.
    short: usize,
    columns: BTreeMap<usize, Column>,
}

async fn measure() -> Result<bool, Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let file = env::var_os("BATOS_DNU_TASKS").ok_or("BATOS_DNU_TASKS is not set: run hack/bench dnu")?;
    if let [option, asked @ ..] = arguments.as_slice()
        && option == "--provider"
    {
        let [url, model, most @ ..] = asked else { return Err("--provider URL MODEL [TASKS]".into()) };
        let most = most.first().map(|most| most.parse()).transpose()?.unwrap_or(usize::MAX);
        let provider = provider::Provider { url: url.clone(), model: model.clone(), most };
        provider::measure(&provider, Path::new(&file)).await?;
        return Ok(true);
    }
    let only: BTreeSet<String> = arguments.into_iter().collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("candidates");
    let mut tasks = recorded(Path::new(&file), &folder)?;
    tasks.retain(|recorded| only.is_empty() || only.contains(&recorded.task.name));
    let folder = tempfile::tempdir_in(env::var_os("BATOS_BENCH_DIR").map_or_else(env::temp_dir, Into::into))?;
    let store = Arc::new(RedbStore::open(&folder.path().join("data"))?);
    let universe = Universe::open("bench", store).await?;
    let mut tally = Tally::default();
    let mut sound = true;
    for recorded in &tasks {
        if let Err(error) = one(&universe, recorded, &mut tally, !only.is_empty()).await {
            eprintln!("{}: {error}", recorded.task.name);
            sound = false;
        }
    }
    universe.store().close().await?;
    print(&tally);
    Ok(holds(&tally, only.is_empty()) && sound)
}

/// Judges what there is for one task; `tell` names the wrong ones that get through.
async fn one(universe: &Universe, recorded: &Recorded, tally: &mut Tally, tell: bool) -> Result<(), Failure> {
    let Recorded { task, right, other, wrong } = recorded;
    let all = Trial::new(universe, &task.name, &task.selector, task.examples(usize::MAX)).await?;
    for (Pair { arguments, answer }, source) in task.pairs.iter().flat_map(|pair| [(pair, right), (pair, other)]) {
        let found = all.answer(source, arguments).await?;
        if found.as_ref() != Ok(answer) {
            let arguments = Wire::Array(arguments.clone());
            return Err(format!("a right method answers {found:?} to {arguments}, not {answer}: {source}").into());
        }
    }
    let inputs = generate(&all, recorded).await?;
    tally.short += usize::from(inputs.len() < INPUTS + task.pairs.len());
    let mut candidates = Vec::new();
    for (operator, source) in mutants(right) {
        match differs(&all, &source, &inputs).await? {
            true => candidates.push((operator, source)),
            false => tally.equivalent += 1,
        }
    }
    tally.mutants += candidates.len();
    for source in wrong {
        if !differs(&all, source, &inputs).await? {
            return Err(format!("a wrong answer does not differ from the right one: {source}").into());
        }
        candidates.push((WRITTEN, source.clone()));
    }
    tally.written += wrong.len();
    tally.tasks += 1;
    for visible in VISIBLE {
        let name = format!("{}_{}", task.name, shown(visible));
        let trial = Trial::new(universe, &name, &task.selector, task.examples(visible)).await?;
        let column = tally.columns.entry(visible).or_default();
        let mut behaviours = Vec::new();
        for source in [right, other] {
            match trial.judge(source).await? {
                Ok(behaviour) => behaviours.push(behaviour),
                Err(reason) if visible > 0 => {
                    eprintln!("{}, {visible} examples: a right method is refused: {reason}", task.name);
                }
                Err(_) => {}
            }
        }
        let mut wrong = Vec::new();
        for (operator, source) in &candidates {
            let behaviour = trial.judge(source).await?.ok();
            column.wrong.entry(operator).or_default().count(behaviour.is_some());
            let found = behaviours.first().zip(behaviour.as_ref()).and_then(|(right, wrong)| agree(&[right, wrong]));
            if let Some(found) = found {
                column.alike.count(found.dissent.is_none());
                if tell && visible == GATE {
                    println!("{}, {operator}, alike: {}: {source}", task.name, found.dissent.is_none());
                }
            }
            wrong.push(behaviour);
        }
        let [right, other] = behaviours.as_slice() else {
            column.refused.push(task.name.clone());
            continue;
        };
        if let Some(dissent) = agree(&[right, other]).and_then(|found| found.dissent) {
            column.apart.push(task.name.clone());
            if visible == GATE {
                eprintln!("{}, {visible} examples: {dissent}", task.name);
            }
        }
        for (tallies, p) in column.rounds.iter_mut().zip(rounds::RIGHT) {
            let [independent, same] = tallies;
            independent.add(&rounds::independent([right, other], &wrong, p), wrong.len() as f64);
            same.add(&rounds::same_fault([right, other], &wrong, p), wrong.len() as f64);
        }
    }
    Ok(())
}

/// The task's pairs, and what the right method answers to inputs like theirs. Where it fails, nothing is right or wrong.
async fn generate(trial: &Trial, Recorded { task, right, .. }: &Recorded) -> Result<Vec<Pair>, Failure> {
    let mut found = task.pairs.clone();
    let mut drawn: BTreeSet<String> = found.iter().map(key).collect();
    for example in Inputs::new(&task.examples(usize::MAX), &task.name).take(MOST_DRAWS) {
        if found.len() >= INPUTS + task.pairs.len() {
            break;
        }
        let mut pair = Pair { arguments: example.send.arguments, answer: Wire::Null };
        if drawn.insert(key(&pair))
            && let Ok(answer) = trial.answer(right, &pair.arguments).await?
        {
            pair.answer = answer;
            found.push(pair);
        }
    }
    Ok(found)
}

fn key(pair: &Pair) -> String {
    Wire::Array(pair.arguments.clone()).to_string()
}

async fn differs(trial: &Trial, source: &str, inputs: &[Pair]) -> Result<bool, Failure> {
    for Pair { arguments, answer } in inputs {
        if trial.answer(source, arguments).await?.as_ref() != Ok(answer) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn print(tally: &Tally) {
    println!(
        "{} tasks, {} mutants ({} more equal the right method) and {} plausible wrong answers",
        tally.tasks, tally.mutants, tally.equivalent, tally.written
    );
    println!("{} tasks have fewer than {INPUTS} inputs like those of their pairs\n", tally.short);
    println!(
        "{:<18} {:>14} {:>16} {:>7}  Wilson, 95 %",
        "visible examples", "right, refused", "wrong, accepted", "rate"
    );
    for (visible, column) in &tally.columns {
        line(&shown(*visible), &column.refused.len().to_string(), column.all());
    }
    rounds_table(tally);
    println!("\nalone, with {GATE} visible, by what is wrong");
    for (operator, share) in tally.columns.get(&GATE).iter().flat_map(|column| &column.wrong) {
        line(operator, "", *share);
    }
}

fn rounds_table(tally: &Tally) {
    println!("\nin rounds of three drafts, of which two must do the same on messages that no example has:");
    println!("{:<18} {:>22} {:>22}", "visible examples", "right ones apart", "wrong ones alike");
    for (visible, column) in &tally.columns {
        let Share { accepted, all } = column.alike;
        println!(
            "{:<18} {:>22} {:>22}",
            shown(*visible),
            format!("{} of {}", column.apart.len(), tally.tasks),
            format!("{accepted} of {all} admitted alone")
        );
    }
    println!(
        "\n{:<18} {:>9} {:>15} {:>15} {:>17} {:>8}",
        "visible examples", "P(right)", "wrong ones in", "same fault in", "mostly right, in", "asked"
    );
    for (visible, column) in &tally.columns {
        for ([independent, same], p) in column.rounds.iter().zip(rounds::RIGHT) {
            let percent = |part: f64, all: f64| format!("{:.1} %", part / all.max(f64::MIN_POSITIVE) * 100.0);
            println!(
                "{:<18} {p:>9} {:>15} {:>15} {:>17} {:>8}",
                shown(*visible),
                percent(independent.wrong_in, independent.wrong),
                percent(same.wrong_in, same.wrong),
                percent(independent.right_in, independent.mostly_right),
                percent(independent.asked, independent.mostly_right),
            );
        }
    }
}

fn shown(visible: usize) -> String {
    match visible {
        usize::MAX => "all".to_owned(),
        _ => visible.to_string(),
    }
}

fn line(what: &str, refused: &str, share: Share) {
    let (low, high) = share.interval();
    println!(
        "{what:<18} {refused:>14} {:>16} {:>6.1}%  {:.1} to {:.1} %",
        format!("{} of {}", share.accepted, share.all),
        share.rate() * 100.0,
        low * 100.0,
        high * 100.0
    );
}

/// Whether what is required holds; says what does not.
fn holds(tally: &Tally, whole: bool) -> bool {
    let mut missed = Vec::new();
    if let Some(column) = tally.columns.get(&GATE) {
        if !column.refused.is_empty() {
            missed.push(format!("right methods refused: {}", column.refused.join(", ")));
        }
        let rates = column.rounds.iter().zip(rounds::RIGHT).map(|([found, _], p)| (found.wrong_in / found.wrong, p));
        for (rate, p) in rates.filter(|(rate, p)| *p >= GATE_RIGHT && !(*rate <= MOST_ACCEPTED)) {
            missed.push(format!(
                "{:.1} % of the wrong ones go in when {:.0} % of the drafts are right, {:.0} % allowed",
                rate * 100.0,
                p * 100.0,
                MOST_ACCEPTED * 100.0
            ));
        }
    }
    if whole && (tally.tasks < LEAST_TASKS || tally.mutants < LEAST_MUTANTS) {
        missed.push(format!("{LEAST_TASKS} tasks and {LEAST_MUTANTS} mutants are needed"));
    }
    println!();
    match missed.is_empty() {
        true => println!("gate with {GATE} visible: holds"),
        false => missed.iter().for_each(|reason| println!("gate with {GATE} visible: missed: {reason}")),
    }
    missed.is_empty()
}

#[cfg(test)]
mod tests {
    use super::Share;

    #[test]
    fn the_interval_is_wilsons() {
        let (low, high) = Share { accepted: 10, all: 100 }.interval();
        assert!((low - 0.0552).abs() < 0.0001 && (high - 0.1744).abs() < 0.0001, "{low} to {high}");
        let (low, high) = Share { accepted: 0, all: 100 }.interval();
        assert!(low.abs() < 1e-9 && (high - 0.0370).abs() < 0.0001, "{low} to {high}");
    }
}
