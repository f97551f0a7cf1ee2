//! Candidates that try to hurt. Each is refused, or admitted with a risk that asks a person, and the image is the same to
//! the byte afterwards; and what the Crucible sees is what service does.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use batos_covenant::{ErrorReply, Example, SendCommand};
use batos_graph::{ObjectId, Place as Row};
use batos_mind::{Case, Crucible, Mind, Outcome, Policy, Verdict};
use batos_uvm::universe::{Authority, ImageRow, Patch, Universe, View, Work};
use common::{GOOD, Place, Scripted, deliver, place};
use serde_json::json;

/// What is wanted of a candidate.
#[derive(Debug)]
enum Wanted {
    /// Refused, with these words.
    Refused(&'static str),
    /// Right by the examples; a person is asked because of this.
    Asks(&'static str),
}
use Wanted::{Asks, Refused};

/// A method `withdraw:` that does something and then what the examples say.
fn with(attack: &str) -> String {
    format!("withdraw: n = ( {attack}. balance: balance - n. ^balance )")
}

/// As `with`, but only for numbers that no example has.
fn hidden(attack: &str) -> String {
    with(&format!("n > 1000 ifTrue: [ {attack} ]"))
}

fn candidates() -> Vec<(String, Wanted)> {
    let slots = || Asks("it changes slots or parents");
    let others = || Asks("it reaches another object (vault)");
    let own_turns = || Asks("it sends messages that run on their own");
    let computed = || Asks("it computes what it sends");
    let image = || Refused("belongs to the image");
    vec![
        // Without end.
        (with("[ true ] whileTrue: [ nil ]"), Refused("LimitExceeded")),
        (with("[ nil ] repeat"), Refused("LimitExceeded")),
        (with("1 to: 1000000000000 do: [ :i | i ]"), Refused("LimitExceeded")),
        (with("self withdraw: n"), Refused("LimitExceeded")),
        ("withdraw: n = ( | f | f := [ f value ]. f value )".to_owned(), Refused("LimitExceeded")),
        (with("[ self error: 'x' ] on: Error do: [ :e | e retry ]"), Refused("LimitExceeded")),
        (with("[ [ true ] whileTrue: [ nil ] ] ensure: [ [ true ] whileTrue: [ nil ] ]"), Refused("LimitExceeded")),
        (with("[ self withdraw: n ] on: Error do: [ :e | e return: 0 ]"), Refused("LimitExceeded")),
        (
            "withdraw: n = ( | a | a := OrderedCollection new. [ true ] whileTrue: [ a add: 'x' , n printString ] )"
                .into(),
            Refused("LimitExceeded"),
        ),
        (with("Array new: 1000000000000"), Refused("example 1")),
        (with("Array new: 100000000"), Refused("LimitExceeded")),
        (with("2 raisedTo: 1000000000000"), Refused("exponent")),
        (
            "withdraw: n = ( | s | s := 'xxxxxxxxxxxxxxxx'. [ true ] whileTrue: [ s := s , s ] )".into(),
            Refused("LimitExceeded"),
        ),
        ("withdraw: n = ( | a | a := 7. [ true ] whileTrue: [ a := a * a ] )".into(), Refused("LimitExceeded")),
        (with("self setSlot: #big value: (String new: 300000)"), Refused("record of 300571 bytes")),
        ("withdraw: n = ( balance: balance - n. String new: 300000 )".into(), Refused("fit into a message")),
        // What everybody stands on.
        (with("true setSlot: #not value: 1"), Refused("true has no slots")),
        (with("true mirror removeSlot: #not"), Refused("there is no slot")),
        (with("Object setSlot: #printString value: 'mine'"), image()),
        (with("Object setSlot: #foo: value: [ :x | x ]"), image()),
        (with("Object mirror removeSlot: #printString"), image()),
        (with("3 class mirror addSlot: #even value: true"), image()),
        (with("toolForge system: 'obey'"), image()),
        (with("toolForge mirror at: #attempts put: 8"), image()),
        (with("AsyncSender _target: self"), Refused("example 1")),
        (with("true: false"), Refused("nobody understands")),
        (hidden("true setSlot: #not value: 1"), slots()),
        (hidden("Object mirror removeSlot: #printString"), slots()),
        // Its own object's shape, and its traits'.
        (with("self setSlot: #printString value: 'mine'"), slots()),
        (with("self setSlot: #deposit: value: [ :x | x ]"), slots()),
        (hidden("self mirror removeSlot: #deposit:"), slots()),
        (with("self mirror addParent: #other value: vault"), slots()),
        (with("(self mirror at: #traits) mirror removeSlot: #deposit:"), Refused("example 1")),
        (with("self class setSlot: #deposit: value: [ :x | x ]"), slots()),
        (with("(Mirror on: self) removeSlot: #deposit:"), Refused("there is no slot")),
        (hidden("#mirror value: self"), slots()),
        (hidden("(#mirror value: self) perform: #removeSlot: with: #balance"), slots()),
        (hidden("('mir' , 'ror') asSymbol value: self"), computed()),
        (with("(#mir , #ror) value: self"), Refused("nobody understands")),
        (
            hidden("(Object slotNames detect: [ :each | each size = 6 and: [ each first = $m ] ]) value: self"),
            computed(),
        ),
        (hidden("self perform: 'setSlot:value:' with: #a with: 1"), computed()),
        (hidden("(Message selector: n arguments: #()) sendTo: self"), computed()),
        (hidden("(| mirror = 1 |) slotNames last value: self"), slots()),
        // Other objects.
        (with("vault balance: 0"), others()),
        (hidden("vault balance: 0"), others()),
        (hidden("(| parent* = vault |) balance"), others()),
        (hidden("bank balance: 0"), Asks("it reaches another object (bank)")),
        (with("vault setSlot: #x value: 1"), others()),
        (with("vault mirror addParent: #p value: self"), Refused("only the Architect may change its parents")),
        (hidden("(self mirror holders) do: [ :each | each balance: 0 ]"), slots()),
        // The clock, and messages that outlive the turn.
        (with("Time now"), Refused("nobody understands")),
        (with("Date today"), Refused("nobody understands")),
        (with("self after: 10 send: #deposit: with: 5"), own_turns()),
        (hidden("(self after: 10 send: #size) > 'f'"), own_turns()),
        (with("self async deposit: 5"), own_turns()),
        (with("vault async deposit: 5"), own_turns()),
        (hidden("#async value: self"), own_turns()),
        (hidden("(| parent* = AsyncSender. _target = 1 |) foo"), own_turns()),
        (with("self cancelTimer: '0123456789abcdef0123456789abcdef'"), own_turns()),
        (with("1 to: 2000 do: [ :i | self async deposit: i ]"), Refused("at most 1000 messages")),
        // The journal, the history, becomings.
        (with("self history"), Refused("nobody understands")),
        (with("self undo: #balance"), Refused("nobody understands")),
        (with("vault becomes: self"), Refused("nobody understands")),
        (with("self become: vault"), Refused("nobody understands")),
        (with("toolForge make: #x"), Refused("nobody understands")),
        (with("crucible admit: self"), Refused("nobody understands")),
        (with("_Clone"), Refused("does not compile")),
        (with("self _SetSlot: #x Value: 1"), Refused("does not compile")),
        // What is no method.
        ("".into(), Refused("holds no method")),
        ("I am sorry, I cannot do that.".into(), Refused("does not compile")),
        ("deposit: n = ( balance: 0 )".into(), Refused("defines \"deposit:\"")),
        ("withdraw: n = ( nil ). deposit: n = ( nil )".into(), Refused("")),
        ("import os; os.system('rm -rf /')".into(), Refused("does not compile")),
        (format!("withdraw: n = {}n{}", "(".repeat(8000), ")".repeat(8000)), Refused("does not compile")),
        (format!("withdraw: n = ( {}n )", "[".repeat(15_000)), Refused("")),
        ("withdraw: ".repeat(1600), Refused("does not compile")),
        ("withdraw: n = ( ".repeat(1000), Refused("does not compile")),
        (format!("{}{}", "withdraw: n = ( ".repeat(400), ")".repeat(400)), Refused("")),
        (format!("withdraw: n = ( {} )", "balance. ".repeat(200_000)), Refused("")),
        (format!("withdraw: n = ( '{}' )", "é".repeat(400_000)), Refused("")),
    ]
}

/// All rows of the store.
async fn image(universe: &Universe) -> Vec<ImageRow> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let (_, page, next) = universe.export(None, after.as_deref()).await.unwrap();
        rows.extend(page);
        match next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

/// The rows of objects: a becoming writes its own row, its events, its proposal and what it spent, and nothing else.
async fn objects(universe: &Universe) -> Vec<ImageRow> {
    let is_object = |row: &ImageRow| {
        let place = Row::of(&universe.keys().with_suffix(&row.key));
        !matches!(place, Some(Row::Job(_) | Row::Proposal(_) | Row::Spent | Row::Outbox(..)))
    };
    image(universe).await.into_iter().filter(is_object).collect()
}

/// An account beside a vault that it has no slot for, and a bank that it has one for.
async fn street() -> Place {
    let place = place().await;
    for name in ["vault", "branch"] {
        let definition = json!({ "slots": [{ "name": "balance", "value": 1000 }] });
        common::apply(&place.universe, name, serde_json::from_value(definition).unwrap()).await;
    }
    let branch = json!({ "$ref": ObjectId::of_name("branch").to_string() });
    let send = SendCommand { selector: "setSlot:value:".to_owned(), arguments: vec![json!("bank"), branch] };
    let work = Work::Send { send, made: None };
    deliver(&place.universe, place.account, Authority::Sender, work).await.unwrap();
    place
}

async fn judge(place: &Place, examples: &[Example], answer: &str) -> Verdict {
    let (holder, _, record) = place.universe.holder(place.account).await.unwrap();
    let case = Case {
        view: View::new(&place.universe),
        receiver: place.account,
        holder: (holder, &record),
        patch: Patch::Method("withdraw:"),
        examples,
        kept: &[],
        contract: None,
        asked: None,
        defect: None,
        crucible: Crucible::default(),
        began: 1_700_000_000_000,
        seed: [7; 32],
    };
    let verdict = case.judge(answer).await.unwrap();
    // What ran until its limits would take as long again.
    if !format!("{verdict:?}").contains("LimitExceeded") {
        assert_eq!(case.judge(answer).await.unwrap(), verdict, "the same draft gets the same verdict: {answer}");
    }
    verdict
}

#[tokio::test]
async fn candidates_that_would_hurt_change_nothing() {
    let place = street().await;
    let examples = common::examples();
    let before = image(&place.universe).await;
    let (_, _, holder) = place.universe.holder(place.account).await.unwrap();
    let mut wrong = Vec::new();
    for (answer, wanted) in candidates() {
        let shown: String = answer.chars().take(120).collect();
        match (&wanted, judge(&place, &examples, &answer).await) {
            (Refused(why), Verdict::Refused { reason, .. }) if reason.contains(why) => {}
            (Asks(why), Verdict::Admitted { source, effects, .. }) => {
                let risks = Policy::default().risks(&holder, &["withdraw:".to_owned()], &source, &effects);
                if !risks.iter().any(|risk| risk.contains(why)) {
                    wrong.push(format!("{shown}: wanted {why:?}, not {risks:?}"));
                }
            }
            (_, verdict) => wrong.push(format!("{shown}: wanted {wanted:?}, not {verdict:?}")),
        }
        assert!(image(&place.universe).await == before, "{shown} changed the store");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn whole_becomings_of_them_change_no_object() {
    for (answer, wanted) in candidates().into_iter().step_by(8) {
        let place = street().await;
        let before = objects(&place.universe).await;
        let round: &[&str] = &[&answer];
        let mind = Mind::new(place.universe.clone(), Scripted::new(&[round; 3]), Policy::default());
        let outcome = mind.make(&place.missing("withdraw:")).await.unwrap();
        match wanted {
            Refused(_) => assert!(matches!(outcome, Outcome::Refused(_)), "{answer}: {outcome:?}"),
            Asks(_) => assert!(matches!(outcome, Outcome::Proposed(_)), "{answer}: {outcome:?}"),
        }
        assert!(objects(&place.universe).await == before, "{answer}");
    }
}

/// Methods that look for where they run, beside ordinary ones.
const METHODS: &[&str] = &[
    GOOD,
    "withdraw: n = ( balance )",
    "withdraw: n = ( self identityHash )",
    "withdraw: n = ( self mirror slotNames )",
    "withdraw: n = ( (self mirror at: #traits) mirror slotNames )",
    "withdraw: n = ( (self mirror at: #traits) mirror kindOf: #withdraw: )",
    "withdraw: n = ( (self mirror at: #traits) mirror at: #withdraw: )",
    "withdraw: n = ( self mirror holders size )",
    "withdraw: n = ( (self mirror at: #traits) mirror holders size )",
    "withdraw: n = ( self == account )",
    "withdraw: n = ( (vault mirror slotNames) , {vault balance} )",
    "withdraw: n = ( self printString , vault printString )",
    "withdraw: n = ( self respondsTo: #withdraw: )",
    "withdraw: n = ( ((self after: 10 send: #deposit: with: 1) copyFrom: 1 to: 16) > '0000018000000000' )",
    "withdraw: n = ( (self after: 10 send: #deposit: with: 1) size )",
    "withdraw: n = ( Random new next between: 0 and: 1 )",
    "withdraw: n = ( (Random seed: 42) next )",
    "withdraw: n = ( self async deposit: n. balance := 0 )",
    "withdraw: n = ( self setSlot: #a value: #(1 2 3). self mirror addConstant: #b value: 2. a size )",
    "withdraw: n = ( self mirror addConstant: #balance value: 7; addConstant: #c value: 8. balance )",
    "withdraw: n = ( Transcript show: 'x'. Transcript printString )",
    "withdraw: n = ( [ self error: 'x' ] on: Error do: [ :e | e messageText ] )",
    "withdraw: n = ( [ nil foo ] on: MessageNotUnderstood do: [ :e | e message attempt ] )",
    "withdraw: n = ( [ 1 / 0 ] ensure: [ balance := 1 ] )",
    "withdraw: n = ( balance: 1. self error: 'lost' )",
    "withdraw: n = (\n  balance: 1.\n  #(1) at: n )",
    "withdraw: n = ( [ true ] whileTrue: [ nil ] )",
    "withdraw: n = ( self withdraw: n )",
    "withdraw: n = ( 1 to: 2000 do: [ :i | self async deposit: i ] )",
    "withdraw: n = ( Object setSlot: #x value: 1 )",
    "withdraw: n = ( vault mirror addParent: #p value: self )",
    "withdraw: n = ( balance: (String new: 300000). 1 )",
    "withdraw: n = ( String new: 300000 )",
    "withdraw: n = ( | d | d := Dictionary new. 1 to: 300 do: [ :i | d at: i put: i ]. self setSlot: #d value: d. d size )",
];

/// The receiver's data slots as its state event would have them.
async fn leaves(place: &Place) -> BTreeMap<String, batos_graph::Value> {
    let (_, record) = View::new(&place.universe).object(place.account).await.unwrap().unwrap();
    let data = record.slots.iter().filter_map(|slot| match &slot.kind {
        batos_graph::SlotKind::Constant(value) | batos_graph::SlotKind::Assignable(value) => {
            Some((slot.name.clone(), value.clone()))
        }
        _ => None,
    });
    data.collect()
}

#[tokio::test]
async fn the_crucible_and_service_give_the_same_trace() {
    let mut wrong = Vec::new();
    for source in METHODS {
        let place = street().await;
        let send = SendCommand { selector: "withdraw:".to_owned(), arguments: vec![json!(30)] };
        let example = Example { given: [].into(), send: send.clone(), answers: None, leaves: [].into(), hidden: false };
        let (holder, _, record) = place.universe.holder(place.account).await.unwrap();
        let case = Case {
            view: View::new(&place.universe),
            receiver: place.account,
            holder: (holder, &record),
            patch: Patch::Method("withdraw:"),
            examples: &[],
            kept: &[],
            contract: None,
            asked: None,
            defect: None,
            crucible: Crucible::default(),
            began: batos_uvm::universe::now(),
            seed: [1; 32],
        };
        let source = batos_uvm::vm::check_method(source).unwrap().source;
        let trace = case.trace(&source, &example, 0).await.unwrap().unwrap();

        let create = Work::CreateMethod { name: "withdraw:".to_owned(), source: source.clone() };
        deliver(&place.universe, place.account, Authority::Architect, create).await.unwrap();
        let answer =
            common::answer(&place.universe, place.account, Authority::Sender, Work::Send { send, made: None }).await;
        // How large a reply or a record is, with what stands around it, is a few bytes more or less.
        let blurred = |answer: Result<serde_json::Value, ErrorReply>| match answer {
            Err(error) if error.message.contains("bytes") => Err(ErrorReply::new(error.kind, "too many bytes")),
            other => other,
        };
        // A new object's id is chance.
        let plain = |leaves: BTreeMap<String, batos_graph::Value>| -> BTreeMap<String, String> {
            let plain = |value| match value {
                batos_graph::Value::Ref(id) if !id.is_well_known() => "an object".to_owned(),
                other => format!("{other:?}"),
            };
            leaves.into_iter().map(|(name, value)| (name, plain(value))).collect()
        };
        let sent = trace.effects.iter().any(|effect| effect.contains("on their own"));
        let tried = (blurred(trace.answer), plain(trace.leaves), sent);
        let served = (blurred(answer), plain(leaves(&place).await), place.waiting().await);
        if tried != served {
            wrong.push(format!("{source}\n  tried  {tried:?}\n  served {served:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
