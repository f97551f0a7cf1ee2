use serde_json::json;

use super::*;
use clap::CommandFactory;

fn planned(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let cluster = Where { context: None, namespace: None };
    let manifests = vec![folder.path().to_owned()];
    let plan = Plan { manifests, offline: true, default_store: None, cluster };
    let (documents, mut problems) = plan.read().unwrap();
    problems.extend(cycles(&documents));
    let told = documents.iter().flat_map(|document| {
        let (title, about) = told(&document.resource, &documents, Some("tikv://d:1"));
        std::iter::once(title).chain(about)
    });
    let place = format!("{}/", folder.path().display());
    (told.collect(), problems.iter().map(|problem| problem.replace(&place, "")).collect())
}

#[test]
fn the_plugin_has_a_sound_command_line() {
    Plugin::command().debug_assert();
}

fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: batos.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

#[test]
fn a_plan_tells_what_becomes_of_files() {
    let universe = resource("Universe", "u", "{ restoreFrom: { snapshot: s } }");
    let method = "{ name: go, method: 'go = ( 1 )' }";
    let prototype = resource(
        "Prototype",
        "p",
        &format!("{{ universe: u, parents: [q, r], slots: [{{ name: n, value: 1 }}, {method}] }}"),
    );
    let parent = resource("Prototype", "q", "{ universe: u }");
    let snapshot = resource("Snapshot", "s", "{ universe: v, claim: c, every: 6h }");
    let all = [
        ("a.yaml", format!("{universe}---\n# nothing\n---\n{prototype}")),
        ("b.yaml", format!("{parent}---\n{snapshot}")),
    ];
    let all: Vec<_> = all.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let (told, problems) = planned(&all);
    assert_eq!(
        told,
        [
            "Universe u",
            "first restored from the last image of Snapshot s",
            "becomes ServiceAccount u-uvm, PodDisruptionBudget u-uvm, Service u-uvm, NetworkPolicy u-uvm, ConfigMap u-uvm, Deployment u-uvm",
            "Prototype p",
            "becomes an object of universe u: 1 data slots, 1 methods, 0 intents, 0 examples",
            "delegates to q",
            "delegates to r, which is not in these files: it waits until there is one",
            "Prototype q",
            "becomes an object of universe u: 0 data slots, 0 methods, 0 intents, 0 examples",
            "Snapshot s",
            "images of universe v on claim c, every 6h, 3 stay",
        ]
    );
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn a_plan_finds_what_the_api_or_the_universe_would_refuse() {
    let prototype = |spec: &str| resource("Prototype", "p", spec);
    let table = [
        (resource("Universe", "u", "{ colour: blue }"), "f.yaml:4:"),
        (
            resource("Universe", "u", "{ workers: { replicas: 2000 } }"),
            "f.yaml: spec.workers.replicas: 2000 is more than",
        ),
        (prototype("{ universe: u, drift: Forget }"), "unknown variant `Forget`"),
        (prototype("{ universe: u, slots: [{ name: go, method: 'go = ( 1 + )' }] }"), "f.yaml:4: slot \"go\""),
        (prototype("{ universe: u, parents: [p] }"), "prototypes p wait for each other"),
        (
            format!(
                "{}---\n{}",
                resource("Prototype", "a", "{ universe: u, parents: [b] }"),
                resource("Prototype", "b", "{ universe: u, parents: [a] }")
            ),
            "prototypes a, b wait for each other",
        ),
    ];
    for (text, expected) in table {
        let (_, problems) = planned(&[("f.yaml", &text)]);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].contains(expected), "{expected}: {problems:?}");
    }
}

#[test]
fn a_tree_shows_readiness_and_drift_below_parents() {
    let ready = |reason: &str, status: &str, more: serde_json::Value| {
        let condition = json!({ "type": "Ready", "status": status, "reason": reason, "message": "why",
            "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let mut all = json!({ "conditions": [condition] });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let prototype = |name: &str, universe: &str, parents: &[&str], status: serde_json::Value| -> Prototype {
        serde_json::from_value(json!({ "apiVersion": "batos.dev/v1alpha1", "kind": "Prototype",
            "metadata": { "name": name }, "spec": { "universe": universe, "parents": parents }, "status": status }))
        .unwrap()
    };
    let mut universe = Universe::new("u", batos_crds::UniverseSpec::default());
    universe.status = serde_json::from_value(ready("Serving", "True", json!({}))).unwrap();
    let applied = || ready("Applied", "True", json!({}));
    let all = [
        prototype("leaf", "u", &["left", "right"], ready("ParentMissing", "False", json!({}))),
        prototype("left", "u", &["root"], ready("Applied", "True", json!({ "drift": 2 }))),
        prototype("other", "v", &[], applied()),
        prototype("ring-a", "u", &["ring-b"], applied()),
        prototype("ring-b", "u", &["ring-a"], json!(null)),
        prototype("right", "u", &["root", "elsewhere"], applied()),
        prototype("root", "u", &[], applied()),
    ];
    assert_eq!(
        tree(&universe, &all),
        "Universe u  Serving
  root  Applied
    left  Applied  2 slots drifted
      leaf  ParentMissing: why
    right  Applied
      leaf  (as above)
  ring-a  Applied
    ring-b  not seen by an operator
      ring-a  (as above)
"
    );
}
