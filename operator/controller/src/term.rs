//! The operator's term: each start gets a larger one, and the universes refuse what an older term says.

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, api::PostParams};

use crate::{context::bounded, error::Error, meta};

const LEASE: &str = "batos-operator";
const TERM: &str = "batos.dev/term";
const ATTEMPTS: u32 = 10;

/// Takes the next term.
pub async fn next(client: &Client, namespace: &str) -> Result<i64, Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    for _ in 0..ATTEMPTS {
        let found = bounded("reading the operator's Lease", leases.get_opt(LEASE)).await?;
        let mut lease = found.clone().unwrap_or_default();
        let term = following(lease.metadata.annotations.as_ref().and_then(|a| a.get(TERM)), Timestamp::now());
        lease.metadata.name = Some(LEASE.to_owned());
        lease.metadata.annotations.get_or_insert_default().insert(TERM.to_owned(), term.to_string());
        let parameters = PostParams { field_manager: Some(meta::MANAGER.to_owned()), ..PostParams::default() };
        // The resource version that was read goes along: of two that start at once, one is told to look again.
        let written = match found {
            Some(_) => bounded("the operator's Lease", leases.replace(LEASE, &parameters, &lease)).await,
            None => bounded("the operator's Lease", leases.create(&parameters, &lease)).await,
        };
        match written {
            Ok(_) => return Ok(term),
            Err(Error::Kubernetes { source, .. }) if is_race(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Start(format!("lost the Lease {LEASE} to others {ATTEMPTS} times")))
}

/// One more than the last; the clock only matters when the Lease was lost.
fn following(last: Option<&String>, now: Timestamp) -> i64 {
    let last: i64 = last.and_then(|last| last.parse().ok()).unwrap_or(0);
    last.saturating_add(1).max(now.as_second())
}

fn is_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_grow_whatever_the_clock_says() {
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(following(None, now), 100);
        assert_eq!(following(Some(&"7".to_owned()), now), 100);
        assert_eq!(following(Some(&"500".to_owned()), now), 501);
    }
}
