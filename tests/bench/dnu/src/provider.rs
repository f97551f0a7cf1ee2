//! A model behind a URL on the same tasks: how many methods it makes, how many of those are right by the asserts that it
//! never saw, and what that takes. Nobody else is asked, and what a person would be asked about counts by itself.

use std::{
    env,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use batos_bench_store::Failure;
use batos_covenant::{
    ApplyCommand, Encoding, IntentDefinition, IntentExample, PrototypeDefinition, Reply, SendCommand, SlotDefinition,
    Wire, decode,
};
use batos_graph::{ObjectId, RedbStore};
use batos_mind::{ApiKey, Client, Endpoint, Mind, Outcome, Policy};
use batos_uvm::{
    universe::{Authority, Delivery, Message, Universe, Work},
    vm::check_method,
};

use crate::{
    Share,
    tasks::{Pair, Task, all},
    trial::Trial,
};

pub struct Provider {
    pub url: String,
    pub model: String,
    /// Tasks that are tried at most.
    pub most: usize,
}

#[derive(Default)]
struct Tally {
    tasks: usize,
    /// A method came: in the first round, and in any.
    first: usize,
    made: usize,
    /// A person would be asked.
    asked: usize,
    /// Of what came, or would once a person says so: what fails asserts.
    wrong: Share,
    /// Of drafts that pass all asserts: those that were refused.
    refused: Share,
    /// Made, and sent again without a call.
    again: usize,
    tokens: u64,
    calls: u64,
    making: Vec<Duration>,
    sending: Vec<Duration>,
}

/// Asks the provider about each task once.
pub async fn measure(provider: &Provider, file: &Path) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&provider.url, &provider.model);
    let key = env::var("BATOS_MIND_KEY").ok().as_deref().and_then(ApiKey::new);
    let client = Client::new(Endpoint { key, ..endpoint })?;
    let folder = tempfile::tempdir_in(env::var_os("BATOS_BENCH_DIR").map_or_else(env::temp_dir, Into::into))?;
    let universe = Universe::open("bench", Arc::new(RedbStore::open(&folder.path().join("data"))?)).await?;
    let mind = Mind::new(universe.clone(), Arc::new(client), Policy::default());
    let mut tally = Tally::default();
    // Without an example nothing can be judged.
    for task in all(file)?.iter().filter(|task| task.shown > 0).take(provider.most) {
        let come_to = one(&universe, &mind, task, &mut tally).await?;
        eprintln!("{:>4} {:<16} {come_to}", tally.tasks, task.name);
    }
    universe.store().close().await?;
    print(provider, &mut tally);
    Ok(())
}

async fn one(universe: &Universe, mind: &Mind, task: &Task, tally: &mut Tally) -> Result<String, Failure> {
    let object = apply(universe, task).await?;
    let (shown, hidden) = task.pairs.split_at(task.shown.min(task.pairs.len()));
    let first = shown.first().map(|pair| pair.arguments.clone()).unwrap_or_default();
    let send = || deliver(universe, object, &task.selector, &first);
    tally.tasks += 1;
    let Delivery::NotUnderstood(missing) = send().await? else { return Err("it is understood already".into()) };
    let begun = Instant::now();
    let outcome = mind.make(&missing).await?;
    let took = begun.elapsed();
    let becoming = mind.becoming_for(&missing).await?.ok_or("the becoming has no journal")?;
    let trial = Trial::of(universe, object, &task.selector).await?;
    let mut admitted = None;
    for tried in mind.replay(becoming).await?.trials {
        let Ok(draft) = check_method(tried.answer.trim()) else { continue };
        if passes(&trial, &draft.source, &task.pairs).await? {
            tally.refused.count(!tried.verdict.starts_with("admitted"));
        }
        if tried.verdict.starts_with("admitted") {
            admitted = Some(draft.source);
        }
    }
    let (source, come_to) = match outcome {
        Outcome::Made(made) => {
            tally.made += 1;
            tally.first += usize::from(made.model_calls == 1);
            tally.making.push(took);
            let begun = Instant::now();
            let answered = send().await?;
            tally.sending.push(begun.elapsed());
            let Delivery::Replied(reply) = answered else { return Err("a made method is not understood".into()) };
            tally.again += usize::from(matches!(decode::<Reply>(&reply)?.0, Reply::Ok(_)));
            (admitted, "made".to_owned())
        }
        Outcome::Proposed(proposal) => {
            tally.asked += 1;
            let why = proposal.risks.first().cloned().unwrap_or_default();
            (Some(proposal.source), format!("a person is asked: {why}"))
        }
        Outcome::Refused(why) | Outcome::NotAvailable(why) => (None, format!("refused: {why}")),
    };
    let spent = mind.becoming(becoming).await?;
    tally.tokens += spent.prompt_tokens + spent.completion_tokens;
    tally.calls += u64::from(spent.model_calls);
    let Some(source) = source else { return Ok(come_to) };
    let right = passes(&trial, &source, hidden).await?;
    tally.wrong.count(!right);
    Ok(format!("{come_to}, {}", if right { "right" } else { "wrong" }))
}

/// A prototype whose intent is the task's prompt, with the examples that it shows.
async fn apply(universe: &Universe, task: &Task) -> Result<ObjectId, Failure> {
    let example = |Pair { arguments, answer }: &Pair| IntentExample {
        arguments: arguments.clone(),
        answers: Some(answer.clone()),
        ..IntentExample::default()
    };
    let intent = IntentDefinition {
        text: task.text.clone(),
        arguments: task.arguments.clone(),
        examples: task.pairs.iter().take(task.shown).map(example).collect(),
        contract: None, outcome: None,
    };
    let name = task.selector.clone();
    let slot = SlotDefinition { name, value: None, method: None, intent: Some(intent), constant: false };
    let definition = PrototypeDefinition { slots: vec![slot], ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    let object = ObjectId::of_name(&task.name);
    batos_bench_store::send(universe, object, Work::Apply { name: task.name.clone(), apply }, None).await?;
    Ok(object)
}

async fn deliver(
    universe: &Universe,
    object: ObjectId,
    selector: &str,
    arguments: &[Wire],
) -> Result<Delivery, Failure> {
    let send = SendCommand { selector: selector.to_owned(), arguments: arguments.to_vec() };
    let message = Message {
        object,
        authority: Authority::Sender,
        sender: String::new(),
        id: None,
        digest: [0; 32],
        encoding: Encoding::MessagePack,
        work: Work::Send { send, made: None },
    };
    Ok(universe.deliver(&message).await?)
}

async fn passes(trial: &Trial, source: &str, pairs: &[Pair]) -> Result<bool, Failure> {
    for Pair { arguments, answer } in pairs {
        if trial.answer(source, arguments).await?.as_ref() != Ok(answer) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn print(provider: &Provider, tally: &mut Tally) {
    let Tally { tasks, first, made, asked, wrong, refused, again, tokens, calls, making, sending } = tally;
    println!("{} at {}: {tasks} tasks", provider.model, provider.url);
    println!("made at once {first}, made in up to three rounds {made}, a person is asked about {asked}");
    let (low, high) = wrong.interval();
    println!(
        "of those, wrong by the asserts that it did not see: {} of {} ({:.1} to {:.1} %)",
        wrong.accepted,
        wrong.all,
        low * 100.0,
        high * 100.0
    );
    println!("of drafts that are right by all asserts, refused: {} of {}", refused.accepted, refused.all);
    println!("answered a second time without a call: {again} of {made}");
    println!("{calls} calls, {} tokens a task", *tokens / (*tasks).max(1) as u64);
    making.sort();
    sending.sort();
    let at = |times: &[Duration], share: f64| {
        times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default().as_secs_f64()
    };
    println!("seconds to make a method: p50 {:.2}, p95 {:.2}", at(making, 0.5), at(making, 0.95));
    println!("the second send takes {:.6} s: {:.0} times less", at(sending, 0.5), at(making, 0.5) / at(sending, 0.5));
}
