//! How much a universe makes. One row counts what began in this hour and the tokens of this day, so that a restart or
//! another worker begins no new account.

use std::collections::BTreeMap;

use batos_covenant::{Encoding, decode, encode};
use batos_graph::{Put, Rev, StoreError};
use batos_uvm::universe::{Changes, Universe, UniverseError};
use serde::{Deserialize, Serialize};

use crate::{BecomingError, MindError, Usage};

/// From the universe's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Becomings that may begin within an hour of the clock.
    pub per_hour: u32,
    /// Of those, for the messages of one sender.
    pub per_sender: u32,
    /// Tokens that models may read and write within a day of UTC.
    pub tokens_per_day: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { per_hour: 600, per_sender: 120, tokens_per_day: 10_000_000 }
    }
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Times that the account is written anew when other workers write it too.
const ATTEMPTS: u32 = 64;

/// The account, of the hour and the day that its numbers say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    hour: u64,
    /// Becomings by sender.
    begun: BTreeMap<String, u32>,
    day: u64,
    tokens: u64,
}

impl Spent {
    /// As it is at this second of the universe's clock.
    pub async fn read(universe: &Universe) -> Result<(Option<Rev>, Self), UniverseError> {
        let rows = universe.store().read(&[universe.keys().spent()]).await.map_err(UniverseError::Store)?;
        let (rev, spent) = match rows.into_iter().next().flatten() {
            None => (None, Self::default()),
            Some(row) => {
                let (spent, _) = decode(&row.bytes).map_err(|e| UniverseError::Internal(format!("budget: {e}")))?;
                (Some(row.rev), spent)
            }
        };
        Ok((rev, spent.at(universe.now())))
    }

    fn at(self, second: u64) -> Self {
        let (hour, day) = (second / HOUR, second / DAY);
        Self {
            begun: if self.hour == hour { self.begun } else { BTreeMap::new() },
            tokens: if self.day == day { self.tokens } else { 0 },
            hour,
            day,
        }
    }

    /// Counts a becoming that begins.
    pub fn begin(&mut self, sender: &str, budget: &Budget) -> Result<(), MindError> {
        self.allow_tokens(budget)?;
        let all: u32 = self.begun.values().sum();
        let own = self.begun.get(sender).copied().unwrap_or(0);
        for (count, most, name, of) in [
            (all, budget.per_hour, "becomingsPerHour", "in this universe".to_owned()),
            (own, budget.per_sender, "becomingsPerHourAndSender", format!("for {sender:?}")),
        ] {
            if count >= most {
                let text = format!("{most} methods were begun {of} in this hour (spec.mind.budget.{name})");
                return Err(MindError::Spent { text, window: "hour" });
            }
        }
        self.begun.insert(sender.to_owned(), own + 1);
        Ok(())
    }

    pub fn allow_tokens(&self, Budget { tokens_per_day, .. }: &Budget) -> Result<(), MindError> {
        match self.tokens < *tokens_per_day {
            true => Ok(()),
            false => {
                let text = format!("models had {} tokens today (spec.mind.budget.tokensPerDay)", self.tokens);
                Err(MindError::Spent { text, window: "day" })
            }
        }
    }

    pub fn row(&self, universe: &Universe, rev: Option<Rev>) -> Result<(Put, Option<Rev>), UniverseError> {
        let bytes = encode(self, Encoding::MessagePack).map_err(|e| UniverseError::Internal(e.to_string()))?;
        Ok((Put { key: universe.keys().spent(), bytes }, rev))
    }
}

/// Whether a model may be asked.
pub(crate) async fn allow(universe: &Universe, budget: &Budget) -> Result<(), BecomingError> {
    Ok(Spent::read(universe).await?.1.allow_tokens(budget)?)
}

/// Counts what a model was asked. Its own commit: whatever becomes of the answer, the tokens are gone.
pub(crate) async fn pay(universe: &Universe, usage: Usage) -> Result<(), UniverseError> {
    let tokens = usage.prompt_tokens + usage.completion_tokens;
    if tokens == 0 {
        return Ok(());
    }
    let mut conflicts = 0;
    loop {
        let (rev, mut spent) = Spent::read(universe).await?;
        spent.tokens = spent.tokens.saturating_add(tokens);
        let changes = Changes { rows: vec![spent.row(universe, rev)?], ..Changes::default() };
        match universe.commit(universe.fresh_marker()?, Vec::new(), changes).await {
            Err(UniverseError::Store(StoreError::Conflict(_))) if conflicts < ATTEMPTS => conflicts += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_days_and_senders_have_accounts_of_their_own() {
        let budget = Budget { per_hour: 3, per_sender: 2, tokens_per_day: 10 };
        let mut spent = Spent::default().at(DAY);
        for (sender, second, wanted) in [
            ("a", DAY, None),
            ("a", DAY, None),
            ("a", DAY, Some("becomingsPerHourAndSender")),
            ("b", DAY, None),
            ("c", DAY + HOUR - 1, Some("becomingsPerHour)")),
            ("a", DAY + HOUR, None),
        ] {
            spent = spent.at(second);
            let found = spent.begin(sender, &budget).err().map(|error| error.to_string());
            assert_eq!(found.is_some(), wanted.is_some(), "{sender} at {second}: {found:?}");
            assert!(found.unwrap_or_default().contains(wanted.unwrap_or_default()), "{sender} at {second}");
        }
        let mut full = Spent { day: 1, tokens: 10, ..Spent::default() }.at(2 * DAY - 1);
        assert!(full.begin("d", &budget).is_err_and(|error| error.to_string().contains("tokensPerDay")));
        assert!(full.at(2 * DAY).begin("d", &budget).is_ok());
    }
}
