//! What stands around the workers: an account without rights, who may reach them and whom they reach, where their metrics
//! are, and how many of them an eviction may take at once.

use std::collections::BTreeSet;

use batos_crds::Universe;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec},
        networking::v1::{
            NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;

use super::{reach, workers};
use crate::{context::Settings, meta, workload::Child};

const DNS: i32 = 53;
/// Where a TiKV server listens unless it is told otherwise; the placement driver, whose address is known, names servers.
const TIKV: i32 = 20160;

pub fn build(universe: &Universe, store: &str, settings: &Settings) -> Vec<Child> {
    let owner = universe.name_any();
    let metadata = || meta::child(universe, &workers::name(&owner), meta::labels("uvm", meta::UNIVERSE, &owner));
    let account = ServiceAccount {
        metadata: metadata(),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let budget = PodDisruptionBudget {
        metadata: metadata(),
        spec: Some(PodDisruptionBudgetSpec {
            selector: Some(meta::label_selector(meta::UNIVERSE, &owner)),
            // One at a time, also when there is but one: a single worker must not keep a node from being drained.
            max_unavailable: Some(IntOrString::Int(1)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    // Messages come over the bus: it is for whoever collects metrics, of each worker.
    let service = Service {
        metadata: metadata(),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(meta::selector(meta::UNIVERSE, &owner)),
            ports: Some(vec![ServicePort {
                name: Some("metrics".to_owned()),
                port: workers::HEALTH_PORT,
                target_port: Some(IntOrString::String("health".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let mut children =
        vec![Child::ServiceAccount(account), Child::PodDisruptionBudget(budget), Child::Service(service)];
    if settings.network_policies {
        children.push(Child::NetworkPolicy(NetworkPolicy {
            metadata: metadata(),
            spec: Some(policy(universe, store, settings)),
        }));
    }
    children
}

/// Nothing comes in but probes; out go names, the bus, the store and the model.
fn policy(universe: &Universe, store: &str, settings: &Settings) -> NetworkPolicySpec {
    let mut out = store_ports(store);
    out.insert(port_of(&reach(universe, settings).url, 4222));
    if let Some(url) = universe.spec.mind.as_ref().and_then(|mind| mind.url.as_deref()) {
        out.insert(port_of(url, if url.starts_with("https") { 443 } else { 80 }));
    }
    let probes = NetworkPolicyIngressRule {
        ports: Some(vec![port("TCP", workers::HEALTH_PORT)]),
        ..NetworkPolicyIngressRule::default()
    };
    let selected = meta::label_selector(meta::UNIVERSE, &universe.name_any());
    NetworkPolicySpec { ingress: Some(vec![probes]), ..outward(selected, out) }
}

fn port(protocol: &str, port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port)),
        ..NetworkPolicyPort::default()
    }
}

/// Where a store is, if it is not a file.
pub fn store_ports(store: &str) -> BTreeSet<i32> {
    let Some(endpoints) = store.strip_prefix("tikv://") else { return BTreeSet::new() };
    endpoints.split(',').map(|endpoint| port_of(endpoint, 2379)).chain([TIKV]).collect()
}

/// A policy for pods that nothing reaches; out go names, and these ports.
pub fn closed(metadata: ObjectMeta, selected: LabelSelector, ports: impl IntoIterator<Item = i32>) -> Child {
    Child::NetworkPolicy(NetworkPolicy { metadata, spec: Some(outward(selected, ports)) })
}

fn outward(selected: LabelSelector, out: impl IntoIterator<Item = i32>) -> NetworkPolicySpec {
    let names = [port("UDP", DNS), port("TCP", DNS)];
    NetworkPolicySpec {
        pod_selector: Some(selected),
        policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        ingress: None,
        egress: Some(vec![NetworkPolicyEgressRule {
            ports: Some(names.into_iter().chain(out.into_iter().map(|number| port("TCP", number))).collect()),
            ..NetworkPolicyEgressRule::default()
        }]),
    }
}

/// Port of an URL or of HOST:PORT.
pub fn port_of(url: &str, default: i32) -> i32 {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', ',']).next().unwrap_or_default();
    host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_the_address() {
        assert_eq!(port_of("nats://bus:4333", 4222), 4333);
        assert_eq!(port_of("nats://bus", 4222), 4222);
        assert_eq!(port_of("http://vllm:8000/v1", 80), 8000);
        assert_eq!(port_of("pd-0:2379", 1), 2379);
        assert_eq!(port_of("nats://a:1,b:2", 4222), 1);
    }
}
