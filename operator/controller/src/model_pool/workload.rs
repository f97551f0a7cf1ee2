//! Engine pods as vLLM wants them, and a Service before them.

use batos_crds::ModelPool;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Container, ContainerPort, EnvVar, HTTPGetAction, PersistentVolumeClaimVolumeSource, PodSpec,
            PodTemplateSpec, Probe, ResourceRequirements, SecurityContext, Service, ServicePort, ServiceSpec, Volume,
            VolumeMount,
        },
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use crate::{meta, universe::quantities, workload::Child};

/// The engine's port.
pub const PORT: u16 = 8000;

pub fn name(pool: &str) -> String {
    format!("{pool}-models")
}

pub fn build(pool: &ModelPool) -> Vec<Child> {
    let owner = pool.name_any();
    let name = name(&owner);
    let labels = meta::labels("models", meta::POOL, &owner);
    let service = Service {
        metadata: meta::child(pool, &name, labels.clone()),
        spec: Some(ServiceSpec {
            selector: Some(meta::selector(meta::POOL, &owner)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: PORT.into(),
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let deployment = Deployment {
        metadata: meta::child(pool, &name, labels.clone()),
        spec: Some(DeploymentSpec {
            replicas: Some(pool.spec.replicas),
            selector: meta::label_selector(meta::POOL, &owner),
            // The new pod needs the GPU that the old one has.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod(pool)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    vec![Child::Service(service), Child::Deployment(deployment)]
}

fn pod(pool: &ModelPool) -> PodSpec {
    let spec = &pool.spec;
    let mut arguments = vec![
        spec.model.clone(),
        format!("--port={PORT}"),
        "--enable-lora".to_owned(),
        format!("--max-loras={}", spec.slots),
        format!("--max-lora-rank={}", spec.max_rank),
    ];
    arguments.extend(spec.args.iter().cloned());
    let gpu = spec.gpu.as_ref();
    let limits = gpu.map(|gpu| quantities(&[(gpu.resource.as_str(), gpu.count.to_string().as_str())]));
    let volume = spec.adapters_claim.as_ref().map(|claim| Volume {
        name: "adapters".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.clone(),
            read_only: Some(true),
        }),
        ..Volume::default()
    });
    let mount = volume.as_ref().map(|volume| VolumeMount {
        name: volume.name.clone(),
        mount_path: "/adapters".to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    let health = |failures, period| Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/health".to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        failure_threshold: Some(failures),
        period_seconds: Some(period),
        ..Probe::default()
    };
    PodSpec {
        automount_service_account_token: Some(false),
        volumes: volume.map(|volume| vec![volume]),
        containers: vec![Container {
            name: "engine".to_owned(),
            image: Some(spec.image.clone()),
            args: Some(arguments),
            env: Some(vec![EnvVar {
                // Without it the engine has no routes for adapters.
                name: "VLLM_ALLOW_RUNTIME_LORA_UPDATING".to_owned(),
                value: Some("1".to_owned()),
                ..EnvVar::default()
            }]),
            ports: Some(vec![ContainerPort {
                name: Some("http".to_owned()),
                container_port: PORT.into(),
                ..ContainerPort::default()
            }]),
            // Loading a model takes minutes: a quarter of an hour before it counts as failed.
            startup_probe: Some(health(450, 2)),
            readiness_probe: Some(health(2, 5)),
            resources: Some(ResourceRequirements { limits, ..ResourceRequirements::default() }),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                ..SecurityContext::default()
            }),
            volume_mounts: mount.map(|mount| vec![mount]),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}
