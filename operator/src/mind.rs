//! What drafts the methods of a universe, as its `spec.mind` says.

use std::{path::Path, sync::Arc, time::Duration};

use batos_crds::{CodexRuleSpec, LawsSpec, MindPersonaSpec, MindSpec};
use batos_mind::{
    ApiKey, Approver, Autonomy, Budget, Client, Codex, Drafter, Either, Endpoint, Persona, Policy, Recorder,
    Recordings, Rule,
};

use crate::cli::Error;

/// Holds the key of the model's server where no file does.
const KEY: &str = "BATOS_MIND_KEY";

/// What is recorded comes first, then the model. `record` is a file for what the model answers.
pub fn drafter(spec: Option<&MindSpec>, record: Option<&Path>) -> Result<Arc<dyn Drafter>, Error> {
    let recorded = spec.map(|mind| mind.recorded.as_slice()).unwrap_or_default();
    let recordings = Recordings::new(recorded.iter().map(|r| (r.request.clone(), r.answer.clone())));
    let endpoint = match spec {
        Some(mind) => endpoint(mind)?,
        None => None,
    };
    Ok(match (endpoint, record) {
        (None, None) => Arc::new(recordings),
        (None, Some(_)) => return Err("there is nothing to record: spec.mind has no url".into()),
        (Some(endpoint), None) => Arc::new(Either(recordings, Client::new(endpoint)?)),
        (Some(endpoint), Some(file)) => Arc::new(Either(recordings, Recorder::open(Client::new(endpoint)?, file)?)),
    })
}

/// What may be made without a person, and whose decisions count beside those that the manifest names.
pub fn policy(spec: Option<&MindSpec>, approvers: &[Approver]) -> Result<Policy, Error> {
    let mut policy = Policy { approvers: approvers.to_vec(), ..Policy::default() };
    let Some(spec) = spec else { return Ok(policy) };
    policy.autonomy = match spec.autonomy {
        batos_crds::Autonomy::Strict => Autonomy::Strict,
        batos_crds::Autonomy::Ask => Autonomy::Ask,
        batos_crds::Autonomy::Careful => Autonomy::Careful,
        batos_crds::Autonomy::Free => Autonomy::Free,
    };
    if let Some(hours) = spec.approval_hours {
        policy.patience = Duration::from_secs(u64::from(hours) * 3600);
    }
    if let Some(budget) = &spec.budget {
        let usual = policy.budget;
        policy.budget = Budget {
            per_hour: budget.becomings_per_hour.unwrap_or(usual.per_hour),
            per_sender: budget.becomings_per_hour_and_sender.unwrap_or(usual.per_sender),
            tokens_per_day: budget.tokens_per_day.map_or(usual.tokens_per_day, i64::unsigned_abs),
        };
    }
    let persona = |persona: &MindPersonaSpec| Persona {
        name: persona.name.clone(),
        prompt: persona.prompt.clone(),
        model: persona.model.clone(),
    };
    policy.repair_after = spec.repair_after;
    policy.recent_messages = spec.recent_messages.map_or(0, |messages| messages as usize);
    policy.personae = spec.personae.iter().map(persona).collect();
    policy.codex = spec.codex.as_ref().map(codex).unwrap_or_default();
    for key in &spec.approvers {
        let bad = || format!("spec.mind.approvers: {key:?} is no Ed25519 public key in hexadecimal");
        policy.approvers.push(batos_mind::approver(key).ok_or_else(bad)?);
    }
    Ok(policy)
}

fn codex(spec: &LawsSpec) -> Codex {
    let rule = |rule: &CodexRuleSpec| Rule {
        name: rule.name.clone(),
        why: rule.why.clone().unwrap_or_default(),
        objects: rule.objects.clone(),
        forbid_making: rule.forbid_making,
        forbid_sends: rule.forbid_sends.clone(),
        forbid_reaching: rule.forbid_reaching.clone(),
        max_bytes: rule.max_bytes.map(|bytes| bytes as usize),
    };
    Codex { principles: spec.principles.clone(), rules: spec.rules.iter().map(rule).collect() }
}

fn endpoint(mind: &MindSpec) -> Result<Option<Endpoint>, Error> {
    let (Some(url), Some(model)) = (&mind.url, &mind.model) else { return Ok(None) };
    let usual = Endpoint::new(url, model);
    let key = match &mind.api_key_file {
        Some(file) => Some(ApiKey::read(Path::new(file))?),
        None if mind.api_key_secret.is_some() => {
            return Err("spec.mind.apiKeySecret needs Kubernetes; use apiKeyFile here".into());
        }
        None => std::env::var(KEY).ok().as_deref().and_then(ApiKey::new),
    };
    Ok(Some(Endpoint {
        key,
        timeout: mind.timeout_seconds.map_or(usual.timeout, |seconds| Duration::from_secs(seconds.into())),
        max_concurrency: mind.max_concurrency.map_or(usual.max_concurrency, |n| n as usize),
        ..usual
    }))
}
