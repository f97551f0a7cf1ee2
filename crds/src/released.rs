//! Whether what is stored in clusters survives a change of the definitions: what the released ones allow, the new ones
//! have to allow too. `released/` has them as they were; a release adds to it.
#![allow(clippy::indexing_slicing)]

use serde_json::Value;

/// What a schema allows no more that `old` allowed, each with its path. Rules in CEL are not compared: a rule that an old
/// object breaks keeps it from being changed, not from being read.
fn narrowed(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let mut bad = |what: String| found.push(format!("{path}: {what}"));
    if new.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        return;
    }
    if old.get("type") != new.get("type") {
        bad(format!("type {} became {}", old["type"], new["type"]));
    }
    for (bound, is_upper) in [
        ("minLength", false),
        ("minItems", false),
        ("minProperties", false),
        ("minimum", false),
        ("maxLength", true),
        ("maxItems", true),
        ("maxProperties", true),
        ("maximum", true),
    ] {
        let number = |schema: &Value| schema.get(bound).and_then(Value::as_f64);
        let is_narrower = match (number(old), number(new)) {
            (Some(old), Some(new)) => {
                if is_upper {
                    new < old
                } else {
                    new > old
                }
            }
            (old, new) => old.is_none() && new.is_some(),
        };
        if is_narrower {
            bad(format!("{bound} became {}", new[bound]));
        }
    }
    for key in ["pattern", "format", "oneOf"] {
        if new.get(key).is_some() && old.get(key) != new.get(key) {
            bad(format!("{key} became {}", new[key]));
        }
    }
    if old.get("nullable") == Some(&Value::Bool(true)) && new.get("nullable") != Some(&Value::Bool(true)) {
        bad("null is allowed no more".to_owned());
    }
    let list = |schema: &Value, key: &str| schema.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(allowed) = new.get("enum").and_then(Value::as_array) {
        match old.get("enum").is_some() {
            true => {
                let lost = list(old, "enum").into_iter().filter(|value| !allowed.contains(value));
                lost.for_each(|value| bad(format!("{value} is allowed no more")));
            }
            false => bad("not every value is allowed any more".to_owned()),
        }
    }
    for field in list(new, "required").into_iter().filter(|field| !list(old, "required").contains(field)) {
        // What has a default is there.
        let is_there = field.as_str().is_some_and(|field| new["properties"][field].get("default").is_some());
        if !is_there {
            bad(format!("{field} is required now"));
        }
    }
    for (name, old) in old.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let below = format!("{path}.{name}");
        match new["properties"].get(name).or_else(|| new.get("additionalProperties")) {
            Some(new) => narrowed(&below, old, new, found),
            None => found.push(format!("{below}: is no more")),
        }
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let (Some(old), Some(new)) = (old.get(key), new.get(key)) {
            narrowed(&format!("{path}{mark}"), old, new, found);
        }
    }
}

/// Of a definition: spec and status of each version that may be stored.
fn lost(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let versions = |definition: &Value| definition["spec"]["versions"].as_array().cloned().unwrap_or_default();
    for old in versions(old) {
        let name = old["name"].as_str().unwrap_or_default().to_owned();
        match versions(new).iter().find(|new| new["name"] == old["name"] && new["served"] == Value::Bool(true)) {
            Some(new) => {
                narrowed(&name, &old["schema"]["openAPIV3Schema"], &new["schema"]["openAPIV3Schema"], &mut found)
            }
            None => found.push(format!("{name}: is served no more")),
        }
    }
    found
}

#[test]
fn whatever_a_cluster_has_stored_survives() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("released");
    for (name, definition) in crate::definitions() {
        let new = serde_json::to_value(&definition).unwrap();
        let Ok(text) = std::fs::read_to_string(folder.join(name).with_extension("yaml")) else {
            continue; // No release has it.
        };
        let old: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(lost(&old, &new), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn no_number_has_a_format_that_kubernetes_does_not_know() {
    for (name, definition) in crate::definitions() {
        let text = serde_json::to_string(&definition).unwrap();
        assert!(!text.contains("\"format\":\"uint"), "{name}");
    }
}

#[test]
fn each_change_that_an_old_object_does_not_survive_is_found() {
    let (name, definition) = crate::definitions().into_iter().find(|(name, _)| *name == "snapshot").unwrap();
    let old = serde_json::to_value(&definition).unwrap();
    assert!(lost(&old, &old).is_empty(), "{name}");
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    type Change = fn(&mut Value);
    let table: [(&str, Change, &str); 9] = [
        ("", |spec| drop(spec["properties"].as_object_mut().unwrap().remove("every")), "spec.every: is no more"),
        ("", |spec| spec["required"].as_array_mut().unwrap().push("every".into()), "\"every\" is required now"),
        ("/properties/keep", |keep| keep["maximum"] = 10.into(), "maximum became 10"),
        ("/properties/keep", |keep| keep["minimum"] = 2.into(), "minimum became 2"),
        ("/properties/keep", |keep| keep["type"] = "string".into(), "type \"integer\" became \"string\""),
        ("/properties/universe", |name| name["pattern"] = "^a".into(), "pattern became \"^a\""),
        ("/properties/universe", |name| name["maxLength"] = 9.into(), "maxLength became 9"),
        ("/properties/universe", |name| name["enum"] = serde_json::json!(["a"]), "not every value"),
        (
            "/properties/s3/properties/bucket",
            |bucket| bucket["minLength"] = 9.into(),
            "spec.s3.bucket: minLength became 9",
        ),
    ];
    for (path, change, expected) in table {
        let mut new = old.clone();
        change(new.pointer_mut(&format!("{spec}{path}")).unwrap());
        let found = lost(&old, &new).join("\n");
        assert!(found.contains(expected), "{expected}: {found}");
    }
    // What allows more is no loss.
    let mut new = old.clone();
    new.pointer_mut(&format!("{spec}/properties/keep")).unwrap()["maximum"] = 1000.into();
    assert!(lost(&old, &new).is_empty());
}
