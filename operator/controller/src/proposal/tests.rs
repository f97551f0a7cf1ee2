use batos_covenant::{Conflict, Decision, ProposalState as Row};
use batos_crds::ProposalState;
use serde_json::json;

use super::{plan::*, *};
use crate::condition::Outlook;

fn universe() -> Universe {
    serde_json::from_value(json!({
        "apiVersion": "batos.dev/v1alpha1", "kind": "Universe",
        "metadata": { "name": "u", "namespace": "default", "uid": "uid" }, "spec": {},
    }))
    .unwrap()
}

fn row(id: u32, state: Row, proposed_at: u64) -> batos_covenant::Proposal {
    batos_covenant::Proposal {
        id: format!("{id:032x}"),
        kind: batos_covenant::ProposalKind::Slot,
        state,
        object: "0b".repeat(16),
        name: Some("account".into()),
        holder: "0c".repeat(16),
        asked: None,
        selector: "withdraw:".into(),
        source: "withdraw: n = ( n )".into(),
        replaces: None,
        digest: "0d".repeat(32),
        risks: vec!["it is new".into()],
        conflict: None,
        mind: "script".into(),
        becoming: String::new(),
        proposed_at,
        expires_at: 1_767_225_600_999,
        decision: None,
    }
}

/// What the API server has once a plan is carried out.
fn carried_out(plan: &Plan<'_>) -> Vec<Proposal> {
    let text = |shown: &Shown<'_>| serde_json::to_string(&shown.object).unwrap();
    plan.shown.iter().map(|shown| serde_json::from_str(&text(shown)).unwrap()).collect()
}

fn names(proposals: &[&Proposal]) -> Vec<String> {
    proposals.iter().filter_map(|proposal| proposal.metadata.name.clone()).collect()
}

#[test]
fn what_is_shown_stays_as_it_is_while_the_universe_says_the_same() {
    let (universe, rows) = (universe(), [row(1, Row::Pending, 5), row(2, Row::Denied, 7)]);
    let first = plan(&universe, &rows, &[]);
    assert_eq!((first.shown.len(), first.gone.len()), (2, 0));
    let shown = &first.shown[0];
    assert_eq!((shown.state, shown.verdict.outlook, shown.live), (ProposalState::Pending, Outlook::Waiting, None));
    let spec = json!(shown.object.spec);
    assert_eq!(
        (&spec["object"], &spec["expiresAt"], &spec["universe"]),
        (&json!("account"), &json!("2026-01-01T00:00:00Z"), &json!("u"))
    );
    let live = carried_out(&first);
    let second = plan(&universe, &rows, &live);
    assert!(second.gone.is_empty() && second.shown.iter().all(|shown| shown.live.is_some_and(|l| *l == shown.object)));
}

#[test]
fn another_draft_is_another_proposal() {
    let (universe, before) = (universe(), row(1, Row::Expired, 5));
    let first = plan(&universe, std::slice::from_ref(&before), &[]);
    let live = carried_out(&first);
    let after = batos_covenant::Proposal { proposed_at: 9, ..row(1, Row::Pending, 9) };
    let second = plan(&universe, &[after], &live);
    assert_ne!(second.shown[0].object.metadata.name, live[0].metadata.name);
    assert_eq!((second.shown[0].live, names(&second.gone)), (None, names(&[&live[0]])));
}

#[test]
fn what_nobody_proposes_goes_and_so_does_what_another_wrote() {
    let (universe, rows) = (universe(), [row(1, Row::Pending, 5)]);
    let right = carried_out(&plan(&universe, &rows, &[])).remove(0);
    let mut forged = right.clone();
    forged.spec.source = "withdraw: n = ( harmless )".into();
    let mut of_an_earlier_universe = right.clone();
    of_an_earlier_universe.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into();
    for live in [forged, of_an_earlier_universe] {
        let live = [live];
        let plan = plan(&universe, &rows, &live);
        assert_eq!((plan.shown.len(), plan.gone.len()), (0, 1));
    }
    let live = [right];
    let plan = plan(&universe, &[], &live);
    assert_eq!((plan.shown.len(), names(&plan.gone)), (0, names(&[&live[0]])));
}

#[test]
fn of_settled_ones_the_last_stay_and_all_that_wait() {
    let settled = (0..100).map(|n| row(n, Row::Applied, u64::from(n)));
    let rows: Vec<_> = settled.chain((200..240).map(|n| row(n, Row::Pending, 0))).collect();
    let universe = universe();
    let plan = plan(&universe, &rows, &[]);
    let count = |state: ProposalState| plan.shown.iter().filter(|shown| shown.state == state).count();
    assert_eq!((count(ProposalState::Pending), count(ProposalState::Applied)), (40, 32));
    let ids: Vec<String> = (68..100).map(|n| format!("{n:032x}")).collect();
    assert!(plan.shown.iter().filter(|s| s.state == ProposalState::Applied).all(|s| ids.contains(&s.object.spec.id)));
}

#[test]
fn how_it_stands_is_told_and_nothing_grows_without_bound() {
    let decided = |state: Row| {
        let decision = Decision {
            proposal: String::new(),
            digest: String::new(),
            approve: true,
            reason: "alice: seen".into(),
            expires_at: 0,
            key: String::new(),
            signature: String::new(),
        };
        batos_covenant::Proposal { decision: Some(decision), ..row(1, state, 1) }
    };
    let told = |row: batos_covenant::Proposal| {
        let universe = universe();
        let plan = plan(&universe, &[row], &[]);
        let verdict = plan.shown[0].verdict.clone();
        (verdict.reason, verdict.outlook, verdict.message)
    };
    assert_eq!(told(decided(Row::Applied)), ("Applied", Outlook::Good, "approved: alice: seen".to_owned()));
    assert_eq!(told(decided(Row::Denied)), ("Denied", Outlook::Good, "denied: alice: seen".to_owned()));
    assert_eq!(told(decided(Row::Approved)).1, Outlook::Waiting);
    let conflict = Conflict { rule: "quiet".into(), why: "so".repeat(5000), how: "it sends async".into() };
    let mut broken = row(1, Row::Pending, 1);
    (broken.conflict, broken.expires_at) = (Some(conflict), 253_402_300_799_999);
    broken.risks = vec!["r".repeat(5000); 100];
    (broken.source, broken.replaces) = ("é".repeat(50_000), Some("x".repeat(100_000)));
    let object = plan(&universe(), std::slice::from_ref(&broken), &[]).shown.remove(0).object;
    let violations = batos_crds::violations(&serde_json::to_value(&object).unwrap());
    assert_eq!(violations, Vec::<String>::new());
    assert_eq!(object.spec.expires_at, None, "it waits for ever");
    let (reason, outlook, _) = told(broken);
    assert_eq!((reason, outlook), ("Conflict", Outlook::Bad));
}
