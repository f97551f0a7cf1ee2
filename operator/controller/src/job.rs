//! Jobs of our own image: what they look like, and how they end.

use batos_crds::S3Spec;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Container, ContainerStateTerminated, EmptyDirVolumeSource, EnvVar, EnvVarSource,
            PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodTemplateSpec, ResourceRequirements, SecretKeySelector,
            Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt};

use crate::{
    context::Settings,
    meta,
    universe::{port_of, quantities},
    workload::{restricted_container, restricted_pod, trouble, unscheduled},
};

/// Where a container leaves what the operator shall know.
pub const REPORT: &str = "/dev/termination-log";
/// Where images are mounted.
const IMAGES: &str = "/images";
/// Tries before a Job has failed, after the first.
const RETRIES: i32 = 4;
/// Seconds that a Job stays when it has ended. One whose end was not taken down is then made again.
const STAYS: i32 = 3600;

/// A volume by its claim, and where it is mounted.
pub struct Mount<'a> {
    pub claim: &'a str,
    pub path: &'a str,
    pub read_only: bool,
}

/// Where images are.
#[derive(Debug, Clone, Copy)]
pub enum Images<'a> {
    Claim(&'a str),
    Bucket(&'a S3Spec),
}

impl<'a> Images<'a> {
    /// A resource names one of them.
    pub fn of(claim: Option<&'a str>, s3: Option<&'a S3Spec>) -> Self {
        s3.map_or(Self::Claim(claim.unwrap_or_default()), Self::Bucket)
    }

    /// An image there, as the command line takes it.
    pub fn path(self, image: &str) -> String {
        match self {
            Self::Claim(_) => format!("{IMAGES}/{image}"),
            Self::Bucket(s3) => s3.url(image),
        }
    }

    pub fn mount(self, read_only: bool) -> Option<Mount<'a>> {
        match self {
            Self::Claim(claim) => Some(Mount { claim, path: IMAGES, read_only }),
            Self::Bucket(_) => None,
        }
    }

    /// Under the names that AWS' own tools read. Keys come from the Secret, by way of the kubelet.
    pub fn environment(self) -> Vec<EnvVar> {
        let Self::Bucket(s3) = self else { return Vec::new() };
        let given =
            |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
        let secret = |name: &str, key: &str, optional: bool| {
            let selector = SecretKeySelector {
                name: s3.credentials_secret.clone(),
                key: key.to_owned(),
                optional: optional.then_some(true),
            };
            let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
            EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
        };
        vec![
            given("AWS_ENDPOINT_URL", &s3.endpoint),
            given("AWS_REGION", &s3.region),
            secret("AWS_ACCESS_KEY_ID", "accessKeyId", false),
            secret("AWS_SECRET_ACCESS_KEY", "secretAccessKey", false),
            secret("AWS_SESSION_TOKEN", "sessionToken", true),
        ]
    }

    /// Where a Job has to be let out to.
    pub fn port(self) -> Option<i32> {
        match self {
            Self::Claim(_) => None,
            Self::Bucket(s3) => Some(port_of(&s3.endpoint, if s3.endpoint.starts_with("https") { 443 } else { 80 })),
        }
    }
}

/// A Job that belongs to `owner`; its pods bear `label` with the owner's name.
pub fn build<K: Resource<DynamicType = ()>>(
    owner: &K,
    name: &str,
    label: &str,
    arguments: Vec<String>,
    environment: Vec<EnvVar>,
    mounts: &[Mount<'_>],
    settings: &Settings,
) -> Job {
    let labels = meta::labels("image", label, &owner.name_any());
    let mount = |at: usize, mount: &Mount<'_>| VolumeMount {
        name: format!("claim-{at}"),
        mount_path: mount.path.to_owned(),
        read_only: mount.read_only.then_some(true),
        ..VolumeMount::default()
    };
    let volume = |at: usize, mount: &Mount<'_>| Volume {
        name: format!("claim-{at}"),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: mount.claim.to_owned(),
            read_only: mount.read_only.then_some(true),
        }),
        ..Volume::default()
    };
    let temporary =
        Volume { name: "tmp".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() };
    let scratch = VolumeMount { name: "tmp".to_owned(), mount_path: "/tmp".to_owned(), ..VolumeMount::default() };
    let pod = PodSpec {
        automount_service_account_token: Some(false),
        security_context: Some(restricted_pod()),
        restart_policy: Some("Never".to_owned()),
        volumes: Some(mounts.iter().enumerate().map(|(at, m)| volume(at, m)).chain([temporary]).collect()),
        containers: vec![Container {
            name: "image".to_owned(),
            image: Some(settings.worker_image.clone()),
            args: Some(arguments),
            env: Some(environment),
            resources: Some(ResourceRequirements {
                requests: Some(quantities(&[("cpu", "50m"), ("memory", "64Mi")])),
                ..ResourceRequirements::default()
            }),
            security_context: Some(restricted_container()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(mounts.iter().enumerate().map(|(at, m)| mount(at, m)).chain([scratch]).collect()),
            ..Container::default()
        }],
        ..PodSpec::default()
    };
    Job {
        metadata: meta::child(owner, name, labels.clone()),
        spec: Some(JobSpec {
            backoff_limit: Some(RETRIES),
            ttl_seconds_after_finished: Some(STAYS),
            // Of one Job two pods never run at once, also when a node is lost.
            pod_replacement_policy: Some("Failed".to_owned()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// How a Job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Stand {
    /// What its pods wait for, if they say so.
    Runs(Option<String>),
    /// Why the last try failed, while another one follows.
    Retries(String),
    Failed(String),
    Done,
}

/// Whether `owner` is who made it: one of the same name may be left of another.
pub fn is_of<K: Resource<DynamicType = ()>>(job: &Job, owner: &K) -> bool {
    let uid = owner.meta().uid.as_deref();
    job.owner_references().iter().any(|reference| Some(reference.uid.as_str()) == uid)
}

pub fn stand(job: &Job, pods: &[&Pod]) -> Stand {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ended = |kind: &str| conditions.clone().find(|c| c.type_ == kind && c.status.as_str() == "True");
    if ended("Complete").is_some() {
        return Stand::Done;
    }
    let ours = || pods.iter().filter(|pod| is_pod_of(pod, job));
    let failed = ours().filter_map(|pod| terminated(pod)).filter(|end| end.exit_code != 0);
    let last = failed.max_by_key(|end| end.finished_at.as_ref().map(|time| time.0));
    let why = last.map(|end| {
        let message = end.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
        message.map_or_else(|| format!("it ended with {}", end.exit_code), str::to_owned)
    });
    match (ended("Failed"), why) {
        (Some(condition), why) => Stand::Failed(why.or_else(|| condition.message.clone()).unwrap_or_default()),
        (None, Some(why)) => Stand::Retries(why),
        (None, None) => Stand::Runs(ours().find_map(|pod| trouble(pod).or_else(|| unscheduled(pod)))),
    }
}

/// How the container ended that did the work: when it began, and what it left.
pub fn report<'p>(job: &Job, pods: &[&'p Pod]) -> Option<&'p ContainerStateTerminated> {
    pods.iter().filter(|pod| is_pod_of(pod, job)).filter_map(|pod| terminated(pod)).find(|end| end.exit_code == 0)
}

fn is_pod_of(pod: &Pod, job: &Job) -> bool {
    pod.owner_references().iter().any(|reference| Some(&reference.uid) == job.metadata.uid.as_ref())
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|container| container.state.as_ref()?.terminated.as_ref())
}
