//! The workload that runs a universe's turns. Building it cannot fail.

use std::collections::BTreeMap;

use batos_crds::{Codex, Universe};
use k8s_openapi::{
    api::{
        apps::v1::{
            Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet, StatefulSetSpec,
        },
        core::v1::{
            ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
            HTTPGetAction, KeyToPath, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec,
            Probe, ResourceRequirements, SecretKeySelector, SecretVolumeSource, Volume, VolumeMount,
            VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use super::{Reach, reach};
use crate::{
    context::Settings,
    meta,
    workload::{Child, restricted_container, restricted_pod},
};

pub const HEALTH_PORT: i32 = 8081;
/// Users on the bus: the workers, and the operator with what it runs. In a Secret the keys of their passwords are called so too.
const SYSTEM: &str = "system";
pub const ARCHITECT: &str = "architect";
/// The volume of a universe in a file.
const DATA: &str = "data";
const PASSWORD: &str = "BATOS_NATS_PASSWORD";
/// Where the key of the model's server is mounted.
const KEY_VOLUME: &str = "mind-key";
const KEY_FOLDER: &str = "/etc/batos-mind";
const KEY_FILE: &str = "key";

pub fn name(universe: &str) -> String {
    format!("{universe}-uvm")
}

pub fn build(
    universe: &Universe,
    store: &str,
    in_file: bool,
    approver: Option<&str>,
    codexes: &[Codex],
    settings: &Settings,
) -> Vec<Child> {
    let owner = universe.name_any();
    let name = name(&owner);
    let labels = meta::labels("uvm", meta::UNIVERSE, &owner);
    let mind = mind(universe, approver, codexes);
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels.clone()),
            annotations: Some(BTreeMap::from([(meta::DIGEST.to_owned(), meta::digest(&mind))])),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(universe, store, in_file, settings)),
    };
    let config = Child::ConfigMap(ConfigMap {
        metadata: meta::child(universe, &name, labels.clone()),
        data: Some(BTreeMap::from([("mind.yaml".to_owned(), mind)])),
        ..ConfigMap::default()
    });
    let metadata = meta::child(universe, &name, labels);
    let selector = meta::label_selector(meta::UNIVERSE, &owner);
    let workload = match in_file {
        false => Child::Deployment(Deployment {
            metadata,
            spec: Some(DeploymentSpec {
                replicas: Some(universe.spec.workers.replicas),
                selector,
                template,
                // A new worker serves before an old one stops.
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(IntOrString::Int(1)),
                        max_unavailable: Some(IntOrString::Int(0)),
                    }),
                }),
                ..DeploymentSpec::default()
            }),
            status: None,
        }),
        // A set never runs two pods of one name at once: the file has one writer.
        true => Child::StatefulSet(StatefulSet {
            metadata,
            spec: Some(StatefulSetSpec {
                replicas: Some(universe.spec.workers.replicas),
                selector,
                template,
                volume_claim_templates: Some(vec![claim(settings)]),
                ..StatefulSetSpec::default()
            }),
            status: None,
        }),
    };
    vec![config, workload]
}

/// The file that `batos uvm --mind` reads; YAML takes JSON. The key of a Secret is mounted beside it.
fn mind(universe: &Universe, approver: Option<&str>, codexes: &[Codex]) -> String {
    let mut mind = universe.spec.mind.clone().unwrap_or_default();
    let mut codexes: Vec<&Codex> = codexes.iter().collect();
    // The same laws are the same file, in whatever order they came.
    codexes.sort_by_key(|codex| codex.name_any());
    codexes.iter().for_each(|codex| mind.with_codex(&codex.name_any(), &codex.spec));
    if let Some(key) = approver.filter(|key| !mind.approvers.iter().any(|known| known == key)) {
        mind.approvers.push(key.to_owned());
    }
    if mind.api_key_secret.take().is_some() {
        mind.api_key_file = Some(format!("{KEY_FOLDER}/{KEY_FILE}"));
    }
    serde_json::to_string(&mind).unwrap_or_default()
}

fn key_volume(universe: &Universe) -> Option<Volume> {
    let secret = universe.spec.mind.as_ref()?.api_key_secret.as_ref()?;
    let item = KeyToPath { key: secret.key.clone(), path: KEY_FILE.to_owned(), mode: None };
    let secret = SecretVolumeSource {
        secret_name: Some(secret.name.clone()),
        items: Some(vec![item]),
        ..SecretVolumeSource::default()
    };
    Some(Volume { name: KEY_VOLUME.to_owned(), secret: Some(secret), ..Volume::default() })
}

fn pod(universe: &Universe, store: &str, in_file: bool, settings: &Settings) -> PodSpec {
    let Reach { url, root, credentials } = reach(universe, settings);
    let config = ConfigMapVolumeSource { name: name(&universe.name_any()), ..ConfigMapVolumeSource::default() };
    let mut volumes = vec![
        Volume { name: "mind".to_owned(), config_map: Some(config), ..Volume::default() },
        Volume { name: "tmp".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() },
    ];
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("mind", "/etc/batos"), mount("tmp", "/tmp")];
    if let Some(key) = key_volume(universe) {
        volumes.push(key);
        mounts.push(mount(KEY_VOLUME, KEY_FOLDER));
    }
    if in_file {
        mounts.push(mount(DATA, "/data"));
    }
    let arguments = [
        "uvm",
        "--universe",
        &universe.name_any(),
        "--store",
        store,
        "--root",
        &root,
        "--mind",
        "/etc/batos/mind.yaml",
        "--keep-history",
        &universe.spec.retention.history,
        "--keep-replies",
        &universe.spec.retention.replies,
        "--keep-unreached",
        &universe.spec.retention.unreached,
        "--health",
        &format!("0.0.0.0:{HEALTH_PORT}"),
    ];
    PodSpec {
        service_account_name: Some(name(&universe.name_any())),
        automount_service_account_token: Some(false),
        security_context: Some(restricted_pod()),
        // A worker that is told to stop finishes its turns; the longest may run as long as its sender waits.
        termination_grace_period_seconds: Some(45),
        volumes: Some(volumes),
        containers: vec![Container {
            name: "uvm".to_owned(),
            image: Some(settings.worker_image.clone()),
            args: Some(arguments.map(str::to_owned).to_vec()),
            env: Some(environment(SYSTEM, &url, credentials)),
            ports: Some(vec![ContainerPort {
                name: Some("health".to_owned()),
                container_port: HEALTH_PORT,
                ..ContainerPort::default()
            }]),
            readiness_probe: Some(Probe {
                http_get: Some(HTTPGetAction {
                    path: Some("/readyz".to_owned()),
                    port: IntOrString::String("health".to_owned()),
                    ..HTTPGetAction::default()
                }),
                period_seconds: Some(2),
                ..Probe::default()
            }),
            resources: Some(resources(universe)),
            security_context: Some(restricted_container()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

/// The password comes from the Secret, by way of the kubelet: the operator never writes it anywhere.
pub fn environment(user: &str, url: &str, credentials: Option<String>) -> Vec<EnvVar> {
    let variable = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let mut variables = vec![variable("BATOS_LOG_FORMAT", "json".to_owned())];
    let Some(secret) = credentials else {
        variables.push(variable("BATOS_NATS", url.to_owned()));
        return variables;
    };
    let key = SecretKeySelector { name: secret, key: user.to_owned(), optional: None };
    let source = EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() };
    variables.push(EnvVar { name: PASSWORD.to_owned(), value: None, value_from: Some(source) });
    variables.push(variable("BATOS_NATS", logged_in(url, user, &format!("$({PASSWORD})"))));
    variables
}

/// A server's URL with a login.
pub fn logged_in(url: &str, user: &str, password: &str) -> String {
    let (scheme, host) = url.split_once("://").unwrap_or(("nats", url));
    format!("{scheme}://{user}:{password}@{host}")
}

fn resources(universe: &Universe) -> ResourceRequirements {
    let Some(wanted) = &universe.spec.workers.resources else {
        return ResourceRequirements {
            requests: Some(quantities(&[("cpu", "50m"), ("memory", "64Mi")])),
            ..ResourceRequirements::default()
        };
    };
    let amounts = |amounts: &BTreeMap<String, String>| {
        let amounts = amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone())));
        Some(amounts.collect::<BTreeMap<_, _>>()).filter(|amounts| !amounts.is_empty())
    };
    let (requests, limits) = (amounts(&wanted.requests), amounts(&wanted.limits));
    ResourceRequirements { requests, limits, ..ResourceRequirements::default() }
}

/// The claim of a set's only worker: Kubernetes calls it so.
pub fn claim_of(universe: &str) -> String {
    format!("{DATA}-{}-0", name(universe))
}

/// That claim before there is a worker, as its set would make it: it outlives the universe.
pub fn first_claim(universe: &Universe, settings: &Settings) -> PersistentVolumeClaim {
    let owner = universe.name_any();
    let metadata = ObjectMeta {
        name: Some(claim_of(&owner)),
        labels: Some(meta::labels("uvm", meta::UNIVERSE, &owner)),
        ..ObjectMeta::default()
    };
    PersistentVolumeClaim { metadata, ..claim(settings) }
}

fn claim(settings: &Settings) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(DATA.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(quantities(&[("storage", &settings.volume_size)])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

pub fn quantities(quantities: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    quantities.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
}
