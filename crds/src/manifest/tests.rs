use super::*;

const UNIVERSE: &str = "apiVersion: batos.dev/v1alpha1\nkind: Universe\nmetadata:\n  name: u\nspec: {}\n";

fn prototype(slots: &str) -> String {
    format!(
        "{UNIVERSE}---\napiVersion: batos.dev/v1alpha1\nkind: Prototype\nmetadata:\n  name: p\nspec:\n  universe: u\n{slots}"
    )
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let second = |text: &str| format!("{UNIVERSE}---\n{text}");
    let table = [
        ("no YAML", "a: ]".to_owned(), 1, "did not find expected"),
        ("no YAML in the second document", second("a: ]"), 7, "did not find expected"),
        ("no map", "- 1".to_owned(), 1, "invalid type"),
        ("kind missing", second("apiVersion: batos.dev/v1alpha1\n"), 7, "missing field `kind`"),
        ("unknown kind", second("apiVersion: batos.dev/v1alpha1\nkind: Protoype\n"), 8, "`Prototype`"),
        ("unknown version", second("apiVersion: batos.dev/v9\nkind: Facet\n"), 7, "`batos.dev/v1alpha1`"),
        ("unknown field", prototype("  colour: blue\n"), 13, "unknown field `colour`"),
        ("unknown field at the top", UNIVERSE.replace("spec", "specs"), 5, "unknown field `specs`"),
        ("no age", UNIVERSE.replace("{}", "\n  retention:\n    history: 1w"), 7, "\"1w\" is no length of time"),
        ("an age of 0", UNIVERSE.replace("{}", "\n  retention: {replies: 0s}"), 6, "\"0s\" is no length of time"),
        (
            "a restore from two places",
            UNIVERSE.replace("spec: {}", "spec:\n  restoreFrom:\n    snapshot: s\n    claim: c"),
            7,
            "one of snapshot, claim and s3",
        ),
        (
            "a restore from somewhere on a volume",
            UNIVERSE.replace("spec: {}", "spec:\n  restoreFrom:\n    claim: c"),
            7,
            "give the image there",
        ),
        (
            "images for ever",
            UNIVERSE
                .replace("kind: Universe", "kind: Snapshot")
                .replace("{}", "\n  universe: u\n  claim: c\n  every: forever"),
            8,
            "\"forever\" is no length of time",
        ),
        ("missing field", UNIVERSE.replace("spec: {}\n", ""), 1, "missing field `spec`"),
        ("missing name", UNIVERSE.replace("name: u", "labels: {}"), 4, "missing field `name`"),
        ("bad name", UNIVERSE.replace("name: u", "name: U.x"), 4, "\"U.x\" is no name"),
        ("wrong type", prototype("  slots: 7\n"), 13, "invalid type: integer `7`"),
        ("wrong type inside", prototype("  slots:\n  - name: x\n    value: 1\n  - name: [1]\n"), 16, "invalid type"),
        ("neither", prototype("  slots:\n  - name: x\n    value: 1\n  - name: y\n"), 16, "\"y\" has neither"),
        (
            "both",
            prototype("  slots:\n  - name: x\n    value: 1\n    method: x = (1)\n"),
            14,
            "\"x\" has more than one",
        ),
        (
            "twice",
            prototype("  slots:\n  - {name: x, value: 1}\n  - {name: x, value: 2}\n"),
            15,
            "\"x\" is there twice",
        ),
        (
            "half a mind",
            UNIVERSE.replace("spec: {}", "spec:\n  mind:\n    url: http://x/v1"),
            7,
            "url and model belong together",
        ),
        (
            "a key in a url",
            UNIVERSE.replace("spec: {}", "spec:\n  mind:\n    url: http://me:pw@x/v1\n    model: m"),
            7,
            "belongs into apiKeyFile",
        ),
        (
            "an outcome of no type",
            prototype("  slots:\n  - name: f\n    intent: {text: x, mode: outcome}\n"),
            14,
            "intent \"f\": an outcome needs answers",
        ),
        (
            "a shape without values",
            prototype(
                "  slots:\n  - name: f\n    intent: {text: x, mode: outcome, answers: {type: integer, min: 2, max: 1}}\n",
            ),
            14,
            "min is more than max",
        ),
        (
            "answers of a method",
            prototype("  slots:\n  - name: f\n    intent: {text: x, answers: {type: integer}}\n"),
            14,
            "for mode outcome",
        ),
        (
            "a contract of an outcome",
            prototype(
                "  slots:\n  - name: f\n    intent: {text: x, mode: outcome, answers: {type: integer}, contract: {ensures: x}}\n",
            ),
            14,
            "a shape, not a contract",
        ),
        (
            "a rule that forbids nothing",
            UNIVERSE.replace("spec: {}", "spec:\n  mind:\n    codex:\n      rules:\n      - name: r\n        why: so"),
            9,
            "rule \"r\" of the codex forbids nothing",
        ),
        ("field twice", prototype("  parents: []\n  parents: []\n"), 12, "duplicate"),
    ];
    for (case, text, line, message) in table {
        let error = parse(&text).expect_err(case);
        assert_eq!(error.line, line, "{case}: {error}");
        assert!(error.message.contains(message), "{case}: {error}");
        assert!(!error.message.contains(" at line"), "{case}: {error}");
    }
}

#[test]
fn documents_are_read_and_empty_ones_skipped() {
    for text in ["", "# nothing\n", "---\n", "---\n# a\n---\n"] {
        assert_eq!(parse(text), Ok(Vec::new()), "{text:?}");
    }
    let text = format!("---\n# comment\n---\n{}", prototype("  slots:\n  - name: x\n    value: null\n"));
    let resources = parse(&text).unwrap();
    let [Resource::Universe(universe), Resource::Prototype(prototype)] = resources.as_slice() else {
        panic!("{resources:?}")
    };
    assert_eq!((universe.metadata.name.as_str(), universe.spec.workers.replicas), ("u", 1));
    assert_eq!(prototype.spec.slots[0].value, Some(serde_json::Value::Null));
}

#[test]
fn retention_has_defaults_and_takes_ages() {
    for (text, history, replies) in [
        ("{}", "30d", "1d"),
        ("{retention: {}}", "30d", "1d"),
        ("{retention: {history: forever}}", "forever", "1d"),
        ("{retention: {history: 12h, replies: 99999s}}", "12h", "99999s"),
    ] {
        let resources = parse(&UNIVERSE.replace("{}", text)).unwrap();
        let [Resource::Universe(universe)] = resources.as_slice() else { panic!("{resources:?}") };
        let retention = &universe.spec.retention;
        assert_eq!((retention.history.as_str(), retention.replies.as_str()), (history, replies), "{text}");
    }
}

/// What the repository shows is what is read.
#[test]
fn the_examples_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
    let read = |file: &str| parse(&std::fs::read_to_string(format!("{folder}/{file}")).unwrap()).unwrap();
    assert!(matches!(read("quickstart/universe.yaml").as_slice(), [Resource::Universe(_)]));
    assert!(matches!(read("facets/facets.yaml").as_slice(), [Resource::ModelPool(_), Resource::Facet(_)]));
    let account = read("quickstart/account.yaml");
    let [Resource::Prototype(account)] = account.as_slice() else { panic!("{account:?}") };
    let definition = account.spec.definition();
    assert_eq!(definition.slots[0].value, Some(0.into()));
    assert_eq!(definition.examples[0].send.selector, "withdraw:");
}
