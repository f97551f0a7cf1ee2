//! `spec.restoreFrom`: a Job brings the image into the store before there are workers.

use batos_crds::{RestoreStatus, S3Spec, Snapshot, Universe};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;

use super::{guards, plan::FILE, workers};
use crate::{
    condition::Verdict,
    context::Settings,
    job::{self, Images, Mount, Stand},
    meta,
    workload::Child,
};

/// What is there of a restore.
#[derive(Default)]
pub struct Observed<'a> {
    /// The one that `spec.restoreFrom` names.
    pub snapshot: Option<&'a Snapshot>,
    pub job: Option<&'a Job>,
    pub pods: Vec<&'a Pod>,
    /// Workers of an earlier universe of this name, which end when the cluster gets to them, and hold the store until then.
    pub others_work: bool,
}

/// What is to be done before workers.
pub struct Pending {
    pub children: Vec<Child>,
    pub verdict: Verdict,
}

pub fn name(universe: &str) -> String {
    format!("{universe}-restore")
}

/// The chosen image, which goes into the status, and what keeps the workers waiting: nothing once all of it is there. The
/// choice is made once: half of one image must not be mixed with another.
pub fn plan(
    universe: &Universe,
    store: &str,
    observed: &Observed<'_>,
    settings: &Settings,
) -> (Option<RestoreStatus>, Option<Pending>) {
    let known = universe.status.as_ref().and_then(|status| status.restore.clone());
    let Some(wanted) = &universe.spec.restore_from else { return (known, None) };
    let waiting = |reason, text| Some(Pending { children: Vec::new(), verdict: Verdict::waiting(reason, text) });
    let named = |claim: &Option<String>, s3: &Option<S3Spec>, image: String| RestoreStatus {
        claim: claim.clone(),
        s3: s3.clone(),
        image,
        done: false,
    };
    let is_named = wanted.claim.is_some() || wanted.s3.is_some();
    let chosen = match (known, &wanted.image, observed.snapshot) {
        (Some(known), ..) => known,
        (None, Some(image), _) if is_named => named(&wanted.claim, &wanted.s3, image.clone()),
        (None, image, Some(snapshot)) => {
            let last = || Some(snapshot.status.as_ref()?.images.as_ref()?.first()?.file.clone());
            let Some(image) = image.clone().or_else(last) else {
                let text = format!("Snapshot {:?} has no image yet", snapshot.name_any());
                return (None, waiting("SnapshotNotReady", text));
            };
            named(&snapshot.spec.claim, &snapshot.spec.s3, image)
        }
        (None, ..) => {
            let name = wanted.snapshot.as_deref().unwrap_or_default();
            return (None, waiting("SnapshotMissing", format!("no Snapshot {name:?} in this namespace")));
        }
    };
    if chosen.done {
        return (Some(chosen), None);
    }
    let image = &chosen.image;
    let pending = match observed.job.filter(|job| job::is_of(job, universe)).map(|job| job::stand(job, &observed.pods))
    {
        Some(Stand::Done) => return (Some(RestoreStatus { done: true, ..chosen }), None),
        None if observed.others_work => waiting(
            "Restoring",
            format!("{image} is restored once the workers of an earlier universe of this name have ended"),
        ),
        None => Some(Pending {
            children: children(universe, store, &chosen, settings),
            verdict: Verdict::waiting("Restoring", format!("{image} is restored")),
        }),
        Some(Stand::Runs(why)) => waiting(
            "Restoring",
            format!("{image} is restored{}", why.map(|why| format!(": {why}")).unwrap_or_default()),
        ),
        Some(Stand::Retries(why) | Stand::Failed(why)) => {
            Some(Pending { children: Vec::new(), verdict: Verdict::bad("RestoreFailed", format!("{image}: {why}")) })
        }
    };
    (Some(chosen), pending)
}

fn children(universe: &Universe, store: &str, chosen: &RestoreStatus, settings: &Settings) -> Vec<Child> {
    let owner = universe.name_any();
    let images = Images::of(chosen.claim.as_deref(), chosen.s3.as_ref());
    let image = images.path(&chosen.image);
    let uid = universe.uid().unwrap_or_default();
    let arguments = ["import", &image, "--universe", &owner, "--store", store, "--once", &uid];
    let claim = workers::claim_of(&owner);
    let mut mounts: Vec<Mount<'_>> = images.mount(true).into_iter().collect();
    let mut children = Vec::new();
    if store == FILE {
        mounts.push(Mount { claim: &claim, path: "/data", read_only: false });
        children.push(Child::PersistentVolumeClaim(workers::first_claim(universe, settings)));
    }
    if settings.network_policies {
        let metadata = meta::child(universe, &name(&owner), meta::labels("image", meta::RESTORE, &owner));
        let selected = meta::label_selector(meta::RESTORE, &owner);
        children.push(guards::closed(metadata, selected, guards::store_ports(store).into_iter().chain(images.port())));
    }
    let arguments = arguments.map(str::to_owned).to_vec();
    let job = job::build(universe, &name(&owner), meta::RESTORE, arguments, images.environment(), &mounts, settings);
    children.push(Child::Job(job));
    children
}
