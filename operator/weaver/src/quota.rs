//! How much each facet and each sender may ask for.

use std::collections::BTreeMap;

use crate::Millis;

/// What one may ask for; none is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a minute; as many may come at once after a quiet minute.
    pub per_minute: Option<u32>,
    /// Requests that wait or are answered.
    pub at_once: Option<u32>,
}

/// A request too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over<K> {
    pub who: K,
    pub quota: Quota,
    /// When one may be asked again, in milliseconds from now; none: when one of those at once has ended.
    pub after: Option<Millis>,
}

const REQUEST: u64 = 60_000;

#[derive(Debug, Clone)]
struct Account {
    quota: Quota,
    open: u32,
    /// Requests that may still come, in 60000ths, and since when.
    credit: u64,
    credited: Millis,
}

impl Account {
    fn new(quota: Quota, now: Millis) -> Self {
        let credit = u64::from(quota.per_minute.unwrap_or(0)) * REQUEST;
        Self { quota, open: 0, credit, credited: now }
    }

    fn refill(&mut self, now: Millis) {
        let rate = u64::from(self.quota.per_minute.unwrap_or(0));
        let earned = now.saturating_sub(self.credited).saturating_mul(rate);
        self.credit = self.credit.saturating_add(earned).min(rate * REQUEST);
        self.credited = now.max(self.credited);
    }

    /// Whether one more may come; else when.
    fn admits(&self) -> Result<(), Option<Millis>> {
        if self.quota.at_once.is_some_and(|most| self.open >= most) {
            return Err(None);
        }
        match self.quota.per_minute {
            Some(rate) if self.credit < REQUEST => Err(Some((REQUEST - self.credit).div_ceil(u64::from(rate).max(1)))),
            _ => Ok(()),
        }
    }
}

/// The accounts of all that have a quota.
#[derive(Debug, Clone)]
pub struct Quotas<K> {
    accounts: BTreeMap<K, Account>,
}

impl<K: Ord + Clone> Quotas<K> {
    pub fn new(quotas: impl IntoIterator<Item = (K, Quota)>, now: Millis) -> Self {
        Self { accounts: quotas.into_iter().map(|(who, quota)| (who, Account::new(quota, now))).collect() }
    }

    /// Others from now on. Who had one keeps his account.
    pub fn set(&mut self, quotas: impl IntoIterator<Item = (K, Quota)>, now: Millis) {
        let mut before = std::mem::take(&mut self.accounts);
        for (who, quota) in quotas {
            let mut account = Account::new(quota, now);
            if let Some(mut old) = before.remove(&who) {
                old.refill(now);
                account.open = old.open;
                if old.quota.per_minute.is_some() {
                    account.credit = account.credit.min(old.credit);
                }
            }
            self.accounts.insert(who, account);
        }
    }

    /// Takes a request from all of these accounts, or from none.
    ///
    /// # Errors
    /// The first whose quota is used up.
    pub fn take(&mut self, whom: &[K], now: Millis) -> Result<(), Over<K>> {
        for who in whom {
            let Some(account) = self.accounts.get_mut(who) else { continue };
            account.refill(now);
            account.admits().map_err(|after| Over { who: who.clone(), quota: account.quota, after })?;
        }
        for who in whom {
            if let Some(account) = self.accounts.get_mut(who) {
                account.open += 1;
                account.credit = account.credit.saturating_sub(REQUEST);
            }
        }
        Ok(())
    }

    /// A request that was taken has ended.
    pub fn ended(&mut self, whom: &[K]) {
        for who in whom {
            if let Some(account) = self.accounts.get_mut(who) {
                account.open = account.open.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(per_minute: Option<u32>, at_once: Option<u32>) -> Quotas<&'static str> {
        Quotas::new([("poet", Quota { per_minute, at_once }), ("alice", Quota::default())], 0)
    }

    #[test]
    fn a_rate_lets_a_minutes_requests_come_at_once_and_then_one_at_a_time() {
        let mut quotas = quotas(Some(6), None);
        for _ in 0..6 {
            quotas.take(&["poet", "alice"], 0).unwrap();
        }
        assert_eq!(quotas.take(&["poet"], 0).unwrap_err().after, Some(10_000));
        assert_eq!(quotas.take(&["poet"], 9_999).unwrap_err().after, Some(1));
        quotas.take(&["poet"], 10_000).unwrap();
        assert_eq!(quotas.take(&["poet"], 10_000).unwrap_err().after, Some(10_000));
        // However long nothing came, no more than a minute's.
        let came = (0..100).filter(|_| quotas.take(&["poet"], 10_000_000).is_ok()).count();
        assert_eq!(came, 6);
    }

    #[test]
    fn so_many_at_once_until_one_ends() {
        let mut quotas = quotas(None, Some(2));
        quotas.take(&["alice", "poet"], 0).unwrap();
        quotas.take(&["alice", "poet"], 0).unwrap();
        let over = quotas.take(&["alice", "poet"], 0).unwrap_err();
        assert_eq!((over.who, over.after), ("poet", None));
        quotas.ended(&["alice", "poet"]);
        quotas.take(&["alice", "poet"], 0).unwrap();
    }

    #[test]
    fn a_quota_that_changes_forgives_nothing() {
        let mut quotas = quotas(Some(2), None);
        quotas.take(&["poet"], 0).unwrap();
        quotas.take(&["poet"], 0).unwrap();
        quotas.set([("poet", Quota { per_minute: Some(60), at_once: Some(2) })], 0);
        assert_eq!(quotas.take(&["poet"], 0).unwrap_err().after, None, "two are open still");
        quotas.ended(&["poet"]);
        assert_eq!(quotas.take(&["poet"], 0).unwrap_err().after, Some(1_000));
        quotas.take(&["poet"], 1_000).unwrap();
    }

    #[test]
    fn a_refused_request_costs_no_other_account() {
        let mut quotas = Quotas::new(
            [
                ("alice", Quota { per_minute: Some(1), at_once: None }),
                ("poet", Quota { per_minute: None, at_once: Some(0) }),
            ],
            0,
        );
        assert_eq!(quotas.take(&["alice", "poet"], 0).unwrap_err().who, "poet");
        quotas.take(&["alice"], 0).unwrap();
        assert!(quotas.take(&["alice"], 0).is_err());
        // Nobody that has no quota is refused.
        quotas.take(&["bob"], 0).unwrap();
    }
}
