//! The workload that runs a universe's turns. Building it cannot fail.

use std::collections::BTreeMap;

use batos_crds::Universe;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec},
        core::v1::{
            ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
            KeyToPath, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec, Probe,
            ResourceRequirements, SecretVolumeSource, Volume, VolumeMount, VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use super::reach;
use crate::{
    context::Settings,
    meta,
    workload::{Child, restricted_container, restricted_pod},
};

const HEALTH_PORT: i32 = 8081;
/// Where the key of the model's server is mounted.
const KEY_VOLUME: &str = "mind-key";
const KEY_FOLDER: &str = "/etc/batos-mind";
const KEY_FILE: &str = "key";

pub fn name(universe: &str) -> String {
    format!("{universe}-uvm")
}

pub fn build(universe: &Universe, store: &str, in_file: bool, settings: &Settings) -> Vec<Child> {
    let owner = universe.name_any();
    let name = name(&owner);
    let labels = meta::labels("uvm", meta::UNIVERSE, &owner);
    let mind = mind(universe);
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
fn mind(universe: &Universe) -> String {
    let mut mind = universe.spec.mind.clone().unwrap_or_default();
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
    let (nats, root) = reach(universe, settings);
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
        mounts.push(mount("data", "/data"));
    }
    let arguments = [
        "uvm",
        "--universe",
        &universe.name_any(),
        "--store",
        store,
        "--nats",
        &nats,
        "--root",
        &root,
        "--mind",
        "/etc/batos/mind.yaml",
        "--keep-history",
        &universe.spec.retention.history,
        "--keep-replies",
        &universe.spec.retention.replies,
        "--health",
        &format!("0.0.0.0:{HEALTH_PORT}"),
    ];
    PodSpec {
        automount_service_account_token: Some(false),
        security_context: Some(restricted_pod()),
        termination_grace_period_seconds: Some(30),
        volumes: Some(volumes),
        containers: vec![Container {
            name: "uvm".to_owned(),
            image: Some(settings.worker_image.clone()),
            args: Some(arguments.map(str::to_owned).to_vec()),
            env: Some(vec![EnvVar {
                name: "BATOS_LOG_FORMAT".to_owned(),
                value: Some("json".to_owned()),
                ..EnvVar::default()
            }]),
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
            resources: Some(ResourceRequirements {
                requests: Some(quantities(&[("cpu", "50m"), ("memory", "64Mi")])),
                ..ResourceRequirements::default()
            }),
            security_context: Some(restricted_container()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

fn claim(settings: &Settings) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some("data".to_owned()), ..ObjectMeta::default() },
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
