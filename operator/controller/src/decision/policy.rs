//! Whether the API server lets only those decide who may: what the chart installed has to be there, word for word, since
//! before the decision was created.

use batos_crds::ProposalDecision;
use k8s_openapi::{
    api::admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
        ValidatingAdmissionPolicySpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::{SignedDuration, Timestamp},
};

/// What the chart installs; OPERATOR stands for the operator's account.
const TEXT: &str = include_str!("../../../../charts/batos/decisions.yaml");
/// API servers learn of a policy some time after it is written.
const SETTLES: SignedDuration = SignedDuration::from_secs(10);

/// Where people decide by resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisions {
    /// Name of the policy, of its binding, and of the Secret with the signing key.
    pub name: String,
    /// The operator's user name, which the policy refuses.
    pub account: String,
}

/// Why a decision does not count: a reason for programs, and for people.
pub type Refusal = (&'static str, String);

pub fn judge(
    decision: &ProposalDecision,
    policy: Option<&ValidatingAdmissionPolicy>,
    binding: Option<&ValidatingAdmissionPolicyBinding>,
    wanted: &Decisions,
) -> Result<(), Refusal> {
    let name = &wanted.name;
    let again = "install the chart's, and decide again";
    let (Some(policy), Some(binding)) = (policy, binding) else {
        let what = if policy.is_none() { "ValidatingAdmissionPolicy" } else { "ValidatingAdmissionPolicyBinding" };
        return Err(("PolicyMissing", format!("nothing says who may decide: no {what} {name:?}; {again}")));
    };
    let altered = |what: &str| ("PolicyAltered", format!("{what} {name:?} is not this operator's; {again}"));
    if policy.spec.as_ref() != Some(&rules(wanted).map_err(|error| ("PolicyAltered", error))?) {
        return Err(altered("ValidatingAdmissionPolicy"));
    }
    if binding.spec.as_ref() != Some(&bound(name)) {
        return Err(altered("ValidatingAdmissionPolicyBinding"));
    }
    let since = since(&policy.metadata).max(since(&binding.metadata));
    let created = decision.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let holds = since.and_then(|since| since.checked_add(SETTLES).ok());
    match (holds, created) {
        (Some(holds), Some(created)) if holds < created => Ok(()),
        _ => Err(("PolicyNewer", "who may decide was said, or changed, only after this; decide again".to_owned())),
    }
}

pub(super) fn rules(wanted: &Decisions) -> Result<ValidatingAdmissionPolicySpec, String> {
    serde_yaml::from_str(&TEXT.replace("OPERATOR", &wanted.account)).map_err(|error| format!("the policy: {error}"))
}

pub(super) fn bound(name: &str) -> ValidatingAdmissionPolicyBindingSpec {
    ValidatingAdmissionPolicyBindingSpec {
        policy_name: Some(name.to_owned()),
        validation_actions: Some(vec!["Deny".to_owned()]),
        ..ValidatingAdmissionPolicyBindingSpec::default()
    }
}

/// The last time that somebody wrote it, as far as the API server tells; its own status is of no matter.
fn since(object: &ObjectMeta) -> Option<Timestamp> {
    let entries = object.managed_fields.iter().flatten().filter(|entry| entry.subresource.is_none());
    let written = entries.filter_map(|entry| entry.time.as_ref());
    written.chain(object.creation_timestamp.as_ref()).map(|time| time.0).max()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted() -> Decisions {
        Decisions { name: "d".into(), account: "system:serviceaccount:batos:operator".into() }
    }

    fn told(spec: impl Fn(&mut Value), managed: &Value, binding: &Value) -> &'static str {
        let mut rules = serde_json::to_value(rules(&wanted()).unwrap()).unwrap();
        spec(&mut rules);
        let metadata = json!({ "name": "d", "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": managed });
        let policy = serde_json::from_value(json!({ "metadata": metadata, "spec": rules })).unwrap();
        let metadata = json!({ "name": "d", "creationTimestamp": "2026-01-01T00:00:00Z" });
        let binding = serde_json::from_value(json!({ "metadata": metadata, "spec": binding })).unwrap();
        judge(&decision("2026-01-01T00:01:00Z"), Some(&policy), Some(&binding), &wanted()).map_or_else(|e| e.0, |()| "")
    }

    fn decision(created: &str) -> ProposalDecision {
        serde_json::from_value(json!({
            "apiVersion": "batos.dev/v1alpha1", "kind": "ProposalDecision",
            "metadata": { "name": "x", "creationTimestamp": created },
            "spec": { "proposal": "p", "digest": "", "verdict": "Deny", "approver": "alice" },
        }))
        .unwrap()
    }

    #[test]
    fn only_the_charts_policy_and_binding_will_do_and_only_from_before() {
        let bound = json!({ "policyName": "d", "validationActions": ["Deny"] });
        let whole = |_: &mut Value| {};
        let written = |time: &str, subresource: Value| json!([{ "time": time, "subresource": subresource }]);
        assert_eq!(told(whole, &json!([]), &bound), "");
        assert_eq!(told(|spec| spec["failurePolicy"] = json!("Ignore"), &json!([]), &bound), "PolicyAltered");
        assert_eq!(
            told(|spec| spec["validations"][1] = json!({ "expression": "true" }), &json!([]), &bound),
            "PolicyAltered"
        );
        let none = json!([{ "name": "never", "expression": "false" }]);
        assert_eq!(told(|spec| spec["matchConditions"] = none.clone(), &json!([]), &bound), "PolicyAltered");
        let audit = json!({ "policyName": "d", "validationActions": ["Audit"] });
        assert_eq!(told(whole, &json!([]), &audit), "PolicyAltered");
        let elsewhere = json!({ "policyName": "d", "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "a": "b" } } } });
        assert_eq!(told(whole, &json!([]), &elsewhere), "PolicyAltered");
        // It was another one until then, or may have been where the API server had not heard of it.
        for (time, expected) in [
            ("2026-01-01T00:00:49Z", ""),
            ("2026-01-01T00:00:50Z", "PolicyNewer"),
            ("2026-01-01T00:02:00Z", "PolicyNewer"),
        ] {
            assert_eq!(told(whole, &written(time, Value::Null), &bound), expected, "{time}");
            assert_eq!(told(whole, &written(time, json!("status")), &bound), "", "{time}");
        }
        let alone = judge(&decision("2026-01-01T00:01:00Z"), None, None, &wanted()).unwrap_err();
        assert_eq!(alone.0, "PolicyMissing");
    }

    /// What the API server fills in by itself stands in the text, so that it is found as it was written.
    #[test]
    fn the_policy_names_the_operator_and_leaves_nothing_to_defaults() {
        let rules = rules(&wanted()).unwrap();
        let text = serde_json::to_value(&rules).unwrap();
        assert!(
            text["validations"][0]["expression"].as_str().unwrap().contains("system:serviceaccount:batos:operator")
        );
        assert_eq!(text["failurePolicy"], "Fail");
        let constraints = &text["matchConstraints"];
        assert_eq!(
            (&constraints["matchPolicy"], &constraints["namespaceSelector"]),
            (&json!("Equivalent"), &json!({}))
        );
        assert_eq!(
            (&constraints["objectSelector"], &constraints["resourceRules"][0]["scope"]),
            (&json!({}), &json!("*"))
        );
    }
}
