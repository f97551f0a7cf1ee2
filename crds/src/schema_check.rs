//! What the API server would say about a resource by its schema, without one. Rules in CEL it alone can say.

use regex::Regex;
use serde_json::Value;

use crate::definitions;

/// What in a resource its schema does not allow, each with its path. Nothing for a kind that is none of ours.
pub fn violations(resource: &Value) -> Vec<String> {
    let kind = resource.get("kind").and_then(Value::as_str).unwrap_or_default();
    let definitions = definitions();
    let Some((_, definition)) = definitions.iter().find(|(_, definition)| definition.spec.names.kind == kind) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    // A rule in CEL: what is made for the others has longer names.
    let longest = match kind {
        "Prototype" | "Facet" => 63,
        "Proposal" | "ProposalDecision" => 253,
        _ => 48,
    };
    let name = resource.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if name.len() > longest {
        found.push(format!("metadata.name: {} characters, at most {longest} are allowed", name.len()));
    }
    let schema = definition.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|schema| serde_json::to_value(&schema.open_api_v3_schema).ok()).unwrap_or_default();
    if let (Some(schema), Some(spec)) = (schema.pointer("/properties/spec"), resource.get("spec")) {
        check("spec", schema, spec, &mut found);
    }
    found
}

/// What in a value a schema does not allow.
pub fn violates(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check("", schema, value, &mut found);
    found
}

fn check(path: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    let mut bad = |text: String| found.push(format!("{path}: {text}"));
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    #[allow(clippy::cast_precision_loss, reason = "bounds of schemas are small")]
    let mut within = |what: &str, count: usize, least: &str, most: &str| {
        if number(least).is_some_and(|least| (count as f64) < least) {
            bad(format!("{count} {what}, at least {} are needed", number(least).unwrap_or_default()));
        }
        if number(most).is_some_and(|most| (count as f64) > most) {
            bad(format!("{count} {what}, at most {} are allowed", number(most).unwrap_or_default()));
        }
    };
    match value {
        Value::String(text) => within("characters", text.chars().count(), "minLength", "maxLength"),
        Value::Array(items) => within("elements", items.len(), "minItems", "maxItems"),
        Value::Object(fields) => within("fields", fields.len(), "minProperties", "maxProperties"),
        _ => {}
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().filter(|v| !v.is_null()).map(Value::to_string).collect();
        bad(format!("{value} is none of {}", allowed.join(", ")));
    }
    if let (Some(pattern), Some(text)) = (schema.get("pattern").and_then(Value::as_str), value.as_str())
        && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
    {
        bad(format!("{text:?} does not match {pattern}"));
    }
    if let Some(given) = value.as_f64() {
        if number("minimum").is_some_and(|least| given < least) {
            bad(format!("{given} is less than {}", number("minimum").unwrap_or_default()));
        }
        if number("maximum").is_some_and(|most| given > most) {
            bad(format!("{given} is more than {}", number("maximum").unwrap_or_default()));
        }
    }
    if let (Some(schema), Some(items)) = (schema.get("items"), value.as_array()) {
        for (at, item) in items.iter().enumerate() {
            check(&format!("{path}[{at}]"), schema, item, found);
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let known = schema.get("properties").and_then(|properties| properties.get(name));
        if let Some(schema) = known.or_else(|| schema.get("additionalProperties")) {
            check(&format!("{path}.{name}"), schema, value, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_schema_does_not_allow_is_said_with_its_path() {
        let universe = |spec: Value| json!({ "kind": "Universe", "metadata": { "name": "u" }, "spec": spec });
        let decision = |verdict: &str, digest: &str| {
            json!({ "kind": "ProposalDecision", "metadata": { "name": "p".repeat(65) },
                "spec": { "proposal": "p", "digest": digest, "verdict": verdict, "approver": "alice" } })
        };
        let table = [
            (universe(json!({})), ""),
            (universe(json!({ "workers": { "replicas": 2000 } })), "spec.workers.replicas: 2000 is more than"),
            (
                universe(json!({ "store": { "tikv": { "endpoints": [] } } })),
                "endpoints: 0 elements, at least 1 are needed",
            ),
            (
                universe(json!({ "store": { "tikv": { "endpoints": ["x"] } } })),
                "endpoints[0]: 1 characters, at least 3",
            ),
            (universe(json!({ "store": { "tikv": { "endpoints": ["a/b:1"] } } })), "\"a/b:1\" does not match"),
            (
                universe(json!({ "restoreFrom": { "claim": "c", "image": "../x" } })),
                "spec.restoreFrom.image: \"../x\" does not",
            ),
            (
                universe(json!({ "workers": { "resources": { "limits": { "memory": "much" } } } })),
                "limits.memory: \"much\"",
            ),
            (
                json!({ "kind": "Universe", "metadata": { "name": "u".repeat(49) }, "spec": {} }),
                "49 characters, at most 48",
            ),
            (
                json!({ "kind": "Prototype", "metadata": { "name": "p" }, "spec": { "universe": "u", "drift": "Forget" } }),
                "spec.drift: \"Forget\" is none of",
            ),
            (decision("Approve", &"0a".repeat(32)), ""),
            (decision("Maybe", &"0a".repeat(32)), "spec.verdict: \"Maybe\" is none of \"Approve\", \"Deny\""),
            (decision("Deny", "0a"), "spec.digest: 2 characters, at least 64 are needed"),
            (decision("Deny", &"0A".repeat(32)), "does not match"),
            (json!({ "kind": "Pod", "spec": { "containers": [] } }), ""),
        ];
        for (resource, expected) in table {
            let found = violations(&resource).join("\n");
            assert_eq!(found.is_empty(), expected.is_empty(), "{resource}: {found}");
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }
}
