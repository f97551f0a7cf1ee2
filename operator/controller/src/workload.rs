//! What Deployments, StatefulSets and their pods say about themselves.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{
        Capabilities, ConfigMap, PersistentVolumeClaim, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
        Service, ServiceAccount,
    },
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};

use crate::condition::Verdict;

/// A child that the operator applies.
#[derive(Debug, Clone, PartialEq)]
// A handful at a time: their size is of no matter.
#[allow(clippy::large_enum_variant)]
pub enum Child {
    ConfigMap(ConfigMap),
    Service(Service),
    ServiceAccount(ServiceAccount),
    NetworkPolicy(NetworkPolicy),
    PodDisruptionBudget(PodDisruptionBudget),
    Deployment(Deployment),
    StatefulSet(StatefulSet),
    Job(Job),
    PersistentVolumeClaim(PersistentVolumeClaim),
}

impl Child {
    /// Kind and name.
    pub fn told(&self) -> String {
        let (kind, metadata) = match self {
            Self::ConfigMap(object) => ("ConfigMap", &object.metadata),
            Self::Service(object) => ("Service", &object.metadata),
            Self::ServiceAccount(object) => ("ServiceAccount", &object.metadata),
            Self::NetworkPolicy(object) => ("NetworkPolicy", &object.metadata),
            Self::PodDisruptionBudget(object) => ("PodDisruptionBudget", &object.metadata),
            Self::Deployment(object) => ("Deployment", &object.metadata),
            Self::StatefulSet(object) => ("StatefulSet", &object.metadata),
            Self::Job(object) => ("Job", &object.metadata),
            Self::PersistentVolumeClaim(object) => ("PersistentVolumeClaim", &object.metadata),
        };
        format!("{kind} {}", metadata.name.as_deref().unwrap_or_default())
    }
}

/// How far a workload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its controller has seen the last change.
    pub observed: bool,
    pub updated: i32,
    pub ready: i32,
    pub total: i32,
}

impl Progress {
    pub fn of_deployment(deployment: &Deployment) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        Self {
            observed: status.observed_generation >= deployment.metadata.generation,
            updated: status.updated_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            total: status.replicas.unwrap_or(0),
        }
    }

    pub fn of_stateful_set(set: &StatefulSet) -> Self {
        let status = set.status.clone().unwrap_or_default();
        Self {
            observed: status.observed_generation >= set.metadata.generation,
            // A rolled set forgets its count of updated pods.
            updated: match status.current_revision == status.update_revision {
                true => status.replicas,
                false => status.updated_replicas.unwrap_or(0),
            },
            ready: status.ready_replicas.unwrap_or(0),
            total: status.replicas,
        }
    }

    /// All pods are of the last change, and serve.
    pub fn complete(&self, wanted: i32) -> bool {
        self.observed && self.updated >= wanted && self.ready >= wanted && self.total == wanted
    }

    /// The verdict on `wanted` pods that are called `noun`.
    pub fn verdict(&self, noun: &str, wanted: i32, pods: &[&Pod]) -> Verdict {
        if wanted == 0 {
            return Verdict::waiting("ScaledToZero", format!("no {noun} is wanted"));
        }
        let count = format!("{} of {wanted} {noun} ready", self.ready.min(wanted));
        if self.complete(wanted) {
            return Verdict::ready("Serving", count);
        }
        if let Some(trouble) = pods.iter().find_map(|pod| trouble(pod)) {
            return Verdict::bad("PodsFailing", format!("{count}: {trouble}"));
        }
        // As a pod of a pool does while the one before it gives its GPU back.
        match pods.iter().find_map(|pod| unscheduled(pod)) {
            Some(why) => Verdict::waiting("Unschedulable", format!("{count}: {why}")),
            None => Verdict::waiting("Starting", count),
        }
    }
}

/// Why a pod does not start, when it says so.
pub fn trouble(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        let usual = matches!(reason, "ContainerCreating" | "PodInitializing");
        (!usual).then(|| format!("pod {name}: {reason}: {}", waiting.message.as_deref().unwrap_or_default()))
    })
}

/// Why no node takes a pod.
pub fn unscheduled(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let scheduled = pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled")?;
    let message = scheduled.message.as_deref().filter(|_| scheduled.status == "False")?;
    Some(format!("pod {name}: {message}"))
}

/// Pods of the operator need no rights: the restricted Pod Security Standard.
pub fn restricted_pod() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(65532),
        run_as_group: Some(65532),
        fs_group: Some(65532),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

pub fn restricted_container() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}
