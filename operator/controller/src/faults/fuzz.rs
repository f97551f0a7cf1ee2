//! Each field of each kind, as its schema has it (Acto, SOSP 2023): one that is set shows in what the operator makes, does
//! or says, or is listed here with the reason; taken back, all is as it was; and after what cannot be read the next right
//! thing counts.

use std::collections::BTreeSet;

use super::*;

/// Fields that show nowhere, and why.
const WITHOUT_EFFECT: [(&str, &str, &str); 7] = [
    ("Universe", "bus", "an empty one is the operator's own server and root"),
    ("Universe", "workers", "an empty one is the default"),
    ("Universe", "retention", "an empty one is the default"),
    ("Universe", "mind", "an empty one makes nothing, like none"),
    ("Prototype", "deletionPolicy", "it shows when the resource is deleted"),
    ("Facet", "persona", "the operator places adapters; whoever asks an expert tells it who it is"),
    ("Facet", "persona/prompt", "the same"),
];

/// Fields that the API server lets nobody change: they are tried on an object that is made anew.
const FIXED: [(&str, &str); 10] = [
    ("Universe", "store"),
    ("Universe", "restoreFrom"),
    ("Prototype", "universe"),
    ("Codex", "universe"),
    ("Snapshot", "universe"),
    ("Snapshot", "claim"),
    ("Snapshot", "s3"),
    // What was written stays, and only the next image is another.
    ("Snapshot", "every"),
    ("Snapshot", "keep"),
    ("Facet", "pool"),
];

/// Specs that fields are tried on which do not stand alone: without, and with them. Of several the longest path counts.
fn special(kind: &str, path: &str) -> Option<(Value, Option<Value>)> {
    let slot = |slot: Value| json!({ "universe": "tikv", "slots": [slot] });
    let intent = |intent: Value| slot(json!({ "name": "b", "intent": intent }));
    let outcome = |answers: Value| intent(json!({ "text": "b", "mode": "outcome", "answers": answers }));
    let data = slot(json!({ "name": "b", "value": 7 }));
    let mind = |mind: Value| json!({ "store": { "tikv": { "endpoints": ["pd:2379"] } }, "mind": mind });
    let restored = |from: Value| json!({ "store": { "tikv": { "endpoints": ["pd:2379"] } }, "restoreFrom": from });
    let server = json!({ "url": "http://m/v1", "model": "m" });
    let with = |field: &str, value: Value| {
        let mut server = server.clone();
        server[field] = value;
        server
    };
    let bucket = json!({ "endpoint": "http://m/v1", "bucket": "images", "credentialsSecret": "b" });
    let law = json!({ "name": "b", "maxBytes": 9 });
    Some(match (kind, path) {
        ("Prototype", "slots/0/method") => (data, Some(slot(json!({ "name": "b", "method": "b = ( 1 )" })))),
        ("Prototype", "slots/0/value") => (slot(json!({ "name": "b", "value": 8 })), None),
        ("Prototype", "slots/0/intent") => (data, Some(intent(json!({ "text": "b" })))),
        ("Prototype", "slots/0/intent/mode" | "slots/0/intent/answers") => {
            (intent(json!({ "text": "b" })), Some(outcome(json!({ "type": "integer" }))))
        }
        ("Prototype", "slots/0/intent/answers/type") => {
            (outcome(json!({ "type": "integer" })), Some(outcome(json!({ "type": "string" }))))
        }
        ("Prototype", "slots/0/intent/answers/fields") => {
            let of = |name: &str| outcome(json!({ "type": "record", "fields": { name: { "type": "integer" } } }));
            (of("k"), Some(of("l")))
        }
        ("Prototype", path) if path.starts_with("slots/0/intent/answers/fields/k/") => {
            let field = |field: Value| outcome(json!({ "type": "record", "fields": { "k": field } }));
            let set = (path == "slots/0/intent/answers/fields/k/type").then(|| field(json!({ "type": "string" })));
            (field(json!({ "type": "integer" })), set)
        }
        ("Prototype", path) if path.starts_with("slots/0/intent/answers/") || path == "slots/0/intent/cache" => {
            (outcome(json!({ "type": "integer" })), None)
        }
        ("Prototype", path) if path.starts_with("slots/0/intent/") => (intent(json!({ "text": "c" })), None),
        ("Prototype", "drift") => (slot(json!({ "name": "lives", "value": 1 })), None),
        ("Universe", "mind/url" | "mind/model") => (mind(json!({})), Some(mind(server))),
        ("Universe", "mind/apiKeyFile") => (mind(server.clone()), Some(mind(with("apiKeyFile", json!("/k"))))),
        ("Universe", path) if path.starts_with("mind/apiKeySecret") => {
            let key = |name: &str, key: &str| mind(with("apiKeySecret", json!({ "name": name, "key": key })));
            match path {
                "mind/apiKeySecret" => (mind(server.clone()), Some(key("a", "k"))),
                "mind/apiKeySecret/name" => (key("a", "k"), Some(key("b", "k"))),
                _ => (key("a", "k"), Some(key("a", "l"))),
            }
        }
        ("Universe", "restoreFrom/snapshot") => {
            (restored(json!({ "snapshot": "nightly" })), Some(restored(json!({ "snapshot": "none" }))))
        }
        ("Universe", "restoreFrom/claim") => (
            restored(json!({ "claim": "a", "image": "a/b.image" })),
            Some(restored(json!({ "claim": "b", "image": "a/b.image" }))),
        ),
        ("Universe", "restoreFrom/s3") => (
            restored(json!({ "claim": "a", "image": "a/b.image" })),
            Some(restored(json!({ "s3": bucket, "image": "a/b.image" }))),
        ),
        ("Universe", path) if path.starts_with("restoreFrom/s3/") => {
            (restored(json!({ "s3": bucket, "image": "a/b.image" })), None)
        }
        ("Snapshot", "s3") => (plain(kind), Some(json!({ "universe": "tikv", "s3": bucket }))),
        ("Snapshot", path) if path.starts_with("s3/") => (json!({ "universe": "tikv", "s3": bucket }), None),
        ("Universe", "restoreFrom/image") => (restored(json!({ "snapshot": "nightly" })), None),
        ("Universe", "restoreFrom") => (mind(json!({})), Some(restored(json!({ "snapshot": "nightly" })))),
        ("Universe", "mind/codex/rules") => (mind(json!({})), Some(mind(json!({ "codex": { "rules": [law] } })))),
        ("Universe", path) if path.starts_with("mind/codex/rules/0/") => {
            (mind(json!({ "codex": { "rules": [law] } })), None)
        }
        ("Codex", "rules") => (json!({ "universe": "tikv" }), Some(json!({ "universe": "tikv", "rules": [law] }))),
        ("Codex", path) if path.starts_with("rules/0/") => (json!({ "universe": "tikv", "rules": [law] }), None),
        _ => return None,
    })
}

/// What a kind cannot be without, besides what its schema asks for.
fn plain(kind: &str) -> Value {
    match kind {
        "Universe" => json!({ "store": { "tikv": { "endpoints": ["pd:2379"] } } }),
        "Prototype" | "Codex" => json!({ "universe": "tikv" }),
        "Snapshot" => json!({ "universe": "tikv", "claim": "images" }),
        "ModelPool" => json!({ "model": "m", "image": "vllm:1", "slots": 2 }),
        "Facet" => json!({ "pool": "small", "adapter": { "path": "/adapters/subject" } }),
        "ProposalDecision" => {
            let row = proposed();
            json!({ "proposal": proposal::name("tikv", &row), "digest": row.digest, "verdict": "Deny", "approver": "bob",
                "expiresAt": "2099-01-01T00:00:00Z" })
        }
        other => panic!("{other}"),
    }
}

fn schema(kind: &str) -> Value {
    let definitions = batos_crds::definitions();
    let (_, definition) = definitions.iter().find(|(_, definition)| definition.spec.names.kind == kind).unwrap();
    let schema = definition.spec.versions[0].schema.as_ref().unwrap();
    let schema = serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap();
    schema["properties"]["spec"].clone()
}

/// All fields below a schema: `0` is the first of a list, `k` a key of a map.
fn fields(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        found.push((path.clone(), field.clone()));
        fields(field, &path, found);
        fields(&field["items"], &format!("{path}/0"), found);
        fields(&field["additionalProperties"], &format!("{path}/k"), found);
    }
}

/// The smallest value that a schema takes, or another one.
fn value(schema: &Value, another: bool) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        let mut allowed = allowed.iter().filter(|value| !value.is_null() && **value != schema["default"]);
        return if another { allowed.next_back() } else { allowed.next() }.unwrap().clone();
    }
    let pick = |candidates: Vec<Value>| {
        let is_time =
            |value: &Value| schema["format"] != "date-time" || value.as_str().is_some_and(|t| t.starts_with("20"));
        let takes = |value: &&Value| {
            batos_crds::violates(schema, value).is_empty() && is_time(value) && **value != schema["default"]
        };
        let mut takes: Vec<&Value> = candidates.iter().filter(takes).collect();
        if another {
            takes.reverse();
        }
        (*takes.first().unwrap_or_else(|| panic!("no value for {schema}"))).clone()
    };
    match schema["type"].as_str() {
        Some("string") => pick(
            [
                "b",
                "2d",
                "ab:1",
                "http://m/v1",
                "2098-01-01T00:00:00Z",
                &"0a".repeat(32),
                "1d",
                "x:2",
                "http://n/v1",
                "2099-01-01T00:00:00Z",
                &"0b".repeat(32),
                "7",
                "file",
            ]
            .iter()
            .map(|text| json!(text))
            .collect(),
        ),
        Some("integer" | "number") => pick(vec![json!(1), json!(5), json!(3)]),
        Some("boolean") => json!(another),
        Some("array") => json!([value(&schema["items"], another)]),
        Some("object") => {
            let one = schema["oneOf"][0]["required"].as_array().into_iter().flatten();
            let required =
                schema["required"].as_array().into_iter().flatten().chain(one).map(|name| name.as_str().unwrap());
            let mut object: serde_json::Map<String, Value> =
                required.map(|name| (name.to_owned(), value(&schema["properties"][name], another))).collect();
            if schema["additionalProperties"].is_object() {
                object.insert("k".to_owned(), value(&schema["additionalProperties"], another));
            }
            object.into()
        }
        // Anything at all.
        _ => json!(if another { 7 } else { 6 }),
    }
}

/// The place in a spec, with all that is above it.
fn at<'a>(spec: &'a mut Value, schema: &Value, path: &str) -> &'a mut Value {
    let (mut place, mut schema) = (spec, schema);
    for step in path.split('/') {
        if place.is_null() {
            *place = value(schema, false);
        }
        (place, schema) = match step {
            "0" => (&mut place[0], &schema["items"]),
            "k" if schema["properties"].is_null() => (&mut place["k"], &schema["additionalProperties"]),
            name => (&mut place[name], &schema["properties"][name]),
        };
    }
    place
}

/// A spec without a field, with it, and with something in its place that cannot be read.
fn tried(kind: &str, path: &str, whole: &Value, field: &Value) -> (Value, Value, Option<Value>) {
    let (mut without, with) = special(kind, path).unwrap_or_else(|| (plain(kind), None));
    let mut with = with.unwrap_or_else(|| {
        // What is above it is there without it too, so that it alone shows.
        if let Some((above, _)) = path.rsplit_once('/') {
            let mut filled = without.clone();
            let place = at(&mut filled, whole, above);
            if place.is_null() {
                *place = at_schema(whole, above);
            }
            without = filled;
        }
        let mut with = without.clone();
        let place = at(&mut with, whole, path);
        let other = value(field, true);
        *place = if *place == other { value(field, false) } else { other };
        with
    });
    let anything = field["x-kubernetes-preserve-unknown-fields"] == true
        || ["items", "additionalProperties"]
            .iter()
            .any(|of| field[*of]["x-kubernetes-preserve-unknown-fields"] == true);
    let bad = (!anything).then(|| {
        let mut bad = with.clone();
        *at(&mut bad, whole, path) = if field["type"] == "string" { json!({ "no": "text" }) } else { json!("bad") };
        bad
    });
    strip(&mut without);
    strip(&mut with);
    (without, with, bad)
}

fn at_schema(whole: &Value, path: &str) -> Value {
    let schema = path.split('/').fold(whole, |schema, step| match step {
        "0" => &schema["items"],
        "k" if schema["properties"].is_null() => &schema["additionalProperties"],
        name => &schema["properties"][name],
    });
    value(schema, false)
}

/// Looking for a place leaves nulls.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

/// All but what was wished.
fn effects(world: &World, kind: &str) -> BTreeMap<Place, Value> {
    let mut seen = world.seen();
    if let Some(subject) = seen.get_mut(&place(&plural(kind), "subject")) {
        subject["spec"] = Value::Null;
        subject["metadata"] = Value::Null;
    }
    seen
}

/// Lets an operator deal with a wish for the subject.
async fn wish(world: &World, kind: &str, spec: &Value, anew: bool) -> BTreeMap<Place, Value> {
    if anew {
        world.memory.user_deletes(&plural(kind), "subject");
        seconds(20).await;
    }
    world.memory.user_applies(object(kind, "subject", spec.clone()));
    seconds(45).await;
    effects(world, kind)
}

fn told(before: &BTreeMap<Place, Value>, after: &BTreeMap<Place, Value>) -> String {
    let keys: BTreeSet<&Place> = before.keys().chain(after.keys()).collect();
    let differs = |key: &&&Place| before.get(**key) != after.get(**key);
    let tell = |key: &&Place| {
        format!(
            "{key:?}\n  {}\n  {}",
            before.get(*key).unwrap_or(&Value::Null),
            after.get(*key).unwrap_or(&Value::Null)
        )
    };
    keys.iter().filter(differs).map(tell).collect::<Vec<_>>().join("\n")
}

async fn every_field(kind: &'static str) {
    let whole = schema(kind);
    let mut all = Vec::new();
    fields(&whole, "", &mut all);
    let world = World::new(None, None);
    let listed = |path: &str| WITHOUT_EFFECT.iter().any(|(of, field, _)| *of == kind && *field == path);
    let story = async {
        wanted(&world.memory);
        seconds(60).await;
        let mut flaws = Vec::new();
        for (path, field) in &all {
            let (without, with, bad) = tried(kind, path, &whole, field);
            for spec in [&without, &with] {
                let found = batos_crds::violations(&object(kind, "subject", spec.clone()));
                assert!(found.is_empty(), "{kind} {path}: {found:?}");
            }
            let anew = FIXED.iter().any(|(of, fixed)| *of == kind && path.split('/').next() == Some(fixed));
            let before = wish(&world, kind, &without, true).await;
            let after = wish(&world, kind, &with, anew).await;
            let reason = world.reason(&plural(kind), "subject");
            if reason == "Invalid" {
                flaws.push(format!("{path}: {with} cannot be read"));
            }
            match listed(path) {
                true if before != after => {
                    flaws.push(format!("{path} is listed, and shows:\n{}", told(&before, &after)))
                }
                false if before == after => flaws.push(format!("{path} shows nowhere: {with}")),
                _ => {}
            }
            let back = wish(&world, kind, &without, anew).await;
            if back != before {
                flaws.push(format!("{path}, taken back, leaves:\n{}", told(&before, &back)));
            }
            let Some(bad) = bad else { continue };
            wish(&world, kind, &bad, anew).await;
            assert_eq!(world.reason(&plural(kind), "subject"), "Invalid", "{kind} {path}: {bad}");
            let good = wish(&world, kind, &with, anew).await;
            if good != after {
                flaws.push(format!("{path}, after {bad}:\n{}", told(&after, &good)));
            }
        }
        assert!(flaws.is_empty(), "{kind}:\n{}", flaws.join("\n"));
    };
    world.run_while(story).await;
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_universe() {
    every_field("Universe").await;
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_prototype() {
    every_field("Prototype").await;
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_codex() {
    every_field("Codex").await;
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_snapshot() {
    every_field("Snapshot").await;
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_model_pool() {
    every_field("ModelPool").await;
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_facet() {
    every_field("Facet").await;
}

/// Nobody can change a decision, and a universe takes one: each field is tried on a world of its own.
#[tokio::test(start_paused = true)]
async fn every_field_of_a_decision() {
    let kind = "ProposalDecision";
    let whole = schema(kind);
    let mut all = Vec::new();
    fields(&whole, "", &mut all);
    let outcome = async |spec: &Value| {
        let world = World::new(None, None);
        wanted(&world.memory);
        world.memory.user_deletes("proposaldecisions", "yes");
        world.memory.user_applies(object(kind, "subject", spec.clone()));
        world.run_for(120).await;
        let mut seen = effects(&world, kind);
        let mut row = serde_json::to_value(&*world.graph.proposal.lock().unwrap()).unwrap();
        // It follows from the rest, and from when the object was made.
        row["decision"]["signature"] = Value::Null;
        seen.insert(place("rows", "proposal"), row);
        seen
    };
    let mut spec = plain(kind);
    let before = outcome(&spec).await;
    for (path, field) in &all {
        let kept = spec[path].clone();
        let other = value(field, true);
        spec[path] = if kept == other { value(field, false) } else { other };
        assert_ne!(outcome(&spec).await, before, "{path} shows nowhere: {spec}");
        spec[path] = kept;
        strip(&mut spec);
    }
}

/// A Proposal is what its universe says: whatever else somebody writes goes.
#[tokio::test(start_paused = true)]
async fn every_field_of_a_proposal() {
    let world = World::new(None, None);
    let whole = schema("Proposal");
    let mut all = Vec::new();
    fields(&whole, "", &mut all);
    let story = async {
        wanted(&world.memory);
        seconds(60).await;
        let before = world.seen();
        let shown = place("proposals", &proposal::name("tikv", &proposed()));
        for (path, field) in &all {
            let mut changed = world.memory.objects()[&shown].clone();
            let other = value(field, true);
            *at(&mut changed["spec"], &whole, path) =
                if changed["spec"][path] == other { value(field, false) } else { other };
            strip(&mut changed["spec"]);
            world.memory.has(&shown.0, &shown.1, changed);
            seconds(60).await;
            assert_eq!(world.seen(), before, "{path}");
        }
    };
    world.run_while(story).await;
}
