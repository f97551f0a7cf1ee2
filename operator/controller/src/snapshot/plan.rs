use std::time::Duration;

use batos_crds::{ImageStatus, Snapshot, Universe};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ContainerStateTerminated, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::ResourceExt;
use serde::Deserialize;

use crate::{
    condition::{READY, Verdict, is_true},
    context::Settings,
    job::{self, Images, Mount, Stand},
    meta,
    universe::{ARCHITECT, closed, environment, port_of, reach},
    workload::Child,
};

/// What is there.
pub struct Observed<'a> {
    pub universe: Option<&'a Universe>,
    pub jobs: Vec<&'a Job>,
    pub pods: Vec<&'a Pod>,
    /// Seconds since 1970.
    pub now: i64,
}

#[derive(Debug)]
pub struct Plan {
    pub children: Vec<Child>,
    pub verdict: Verdict,
    pub last_due: Option<i64>,
    pub images: Vec<ImageStatus>,
    /// When to look again, even if nothing changes.
    pub next: Option<Duration>,
}

/// What `batos export` leaves.
#[derive(Deserialize)]
struct Written {
    bytes: i64,
    objects: i64,
    rows: i64,
    digest: String,
    milliseconds: i64,
}

/// Runs are named after the time at which they were due, so that each is made once, whoever made it.
pub fn plan(snapshot: &Snapshot, observed: &Observed<'_>, settings: &Settings) -> Plan {
    let created = snapshot.creation_timestamp().map_or(observed.now, |time| time.0.as_second());
    let since = observed.now.saturating_sub(created).max(0);
    let (due, next) = match snapshot.spec.period() {
        Some(period) => {
            let rest = since.checked_rem(period).unwrap_or(0);
            let left = u64::try_from(period.saturating_sub(rest)).unwrap_or(1).max(1);
            (created.saturating_add(since.saturating_sub(rest)), Some(Duration::from_secs(left)))
        }
        None => (created, None),
    };
    let status = snapshot.status.clone().unwrap_or_default();
    let (mut last_due, mut images) = (status.last_due, status.images.unwrap_or_default());
    let mut was_ready = is_true(&status.conditions, READY);
    let mut jobs: Vec<(i64, &Job)> = observed
        .jobs
        .iter()
        .filter(|job| job::is_of(job, snapshot))
        .filter_map(|job| Some((job.name_any().rsplit_once('-')?.1.parse().ok()?, *job)))
        .collect();
    jobs.sort_by_key(|(due, _)| *due);
    for (due, job) in &jobs {
        let is_new = last_due.is_none_or(|last| last < *due);
        if let Some(image) = taken(snapshot, *due, job, &observed.pods).filter(|_| is_new) {
            images.insert(0, image);
            last_due = Some(*due);
            was_ready = true;
        }
    }
    images.truncate(usize::try_from(snapshot.spec.keep).unwrap_or(1));

    let told = match images.first() {
        Some(ImageStatus { file, bytes, objects, .. }) => format!("{file}: {objects} objects in {bytes} bytes"),
        None => "no image yet".to_owned(),
    };
    let mut plan = Plan { children: Vec::new(), verdict: Verdict::ready("Taken", &told), last_due, images, next };
    if last_due.is_some_and(|last| last >= due) {
        return plan;
    }
    let stand = |(_, job): &(i64, &Job)| job::stand(job, &observed.pods);
    let running = jobs.iter().find(|run| matches!(stand(run), Stand::Runs(_) | Stand::Retries(_)));
    if let Some(run) = running.or_else(|| jobs.iter().find(|(at, _)| *at == due)) {
        plan.verdict = match stand(run) {
            Stand::Retries(why) => Verdict::bad("ExportFailed", format!("{why}; it is tried again")),
            Stand::Failed(why) => Verdict::bad("ExportFailed", why),
            Stand::Runs(Some(why)) => Verdict::waiting("Exporting", why),
            // What was taken before is as good as it was.
            Stand::Runs(None) | Stand::Done if was_ready => plan.verdict,
            Stand::Runs(None) | Stand::Done => Verdict::waiting("Exporting", "the image is written"),
        };
        return plan;
    }
    let name = &snapshot.spec.universe;
    plan.verdict = match observed.universe {
        None => Verdict::waiting("UniverseMissing", format!("no Universe {name:?} in this namespace; {told}")),
        Some(universe) if universe.status.as_ref().and_then(|s| s.workers_ready).unwrap_or(0) < 1 => {
            Verdict::waiting("UniverseNotReady", format!("universe {name:?} has no ready worker; {told}"))
        }
        Some(universe) => {
            plan.children = children(snapshot, universe, due, settings);
            match was_ready {
                true => plan.verdict,
                false => Verdict::waiting("Exporting", "the image is written"),
            }
        }
    };
    plan
}

/// The image of a run that ended well, as far as its pod has told.
fn taken(snapshot: &Snapshot, due: i64, job: &Job, pods: &[&Pod]) -> Option<ImageStatus> {
    if job::stand(job, pods) != Stand::Done {
        return None;
    }
    let ContainerStateTerminated { message, started_at, .. } = job::report(job, pods)?;
    let Written { bytes, objects, rows, digest, milliseconds } = serde_json::from_str(message.as_deref()?).ok()?;
    let begun = started_at.clone().or_else(|| Timestamp::from_second(due).ok().map(Time))?;
    Some(ImageStatus { file: file(snapshot, due), taken: begun, bytes, objects, rows, digest, milliseconds })
}

/// Where a run's image goes on the volume, or in the bucket: in a folder by the snapshot's name, ordered by time.
fn file(snapshot: &Snapshot, due: i64) -> String {
    let time = Timestamp::from_second(due).map(|time| time.strftime("%Y%m%dT%H%M%SZ").to_string());
    format!("{}/{}.image", snapshot.name_any(), time.unwrap_or_else(|_| due.to_string()))
}

fn children(snapshot: &Snapshot, universe: &Universe, due: i64, settings: &Settings) -> Vec<Child> {
    let name = snapshot.name_any();
    let reach = reach(universe, settings);
    let images = Images::of(snapshot.spec.claim.as_deref(), snapshot.spec.s3.as_ref());
    let image = images.path(&file(snapshot, due));
    let keep = snapshot.spec.keep.to_string();
    let arguments = [
        "export",
        &image,
        "--keep",
        &keep,
        "--report",
        job::REPORT,
        "--universe",
        &universe.name_any(),
        "--root",
        &reach.root,
    ];
    let mounts: Vec<Mount<'_>> = images.mount(false).into_iter().collect();
    let job = job::build(
        snapshot,
        &format!("{name}-{due}"),
        meta::SNAPSHOT,
        arguments.map(str::to_owned).to_vec(),
        environment(ARCHITECT, &reach.url, reach.credentials).into_iter().chain(images.environment()).collect(),
        &mounts,
        settings,
    );
    let mut children = Vec::new();
    if settings.network_policies {
        let metadata = meta::child(snapshot, &format!("{name}-snapshot"), meta::labels("image", meta::SNAPSHOT, &name));
        let out = [port_of(&reach.url, 4222)].into_iter().chain(images.port());
        children.push(closed(metadata, meta::label_selector(meta::SNAPSHOT, &name), out));
    }
    children.push(Child::Job(job));
    children
}
