//! A row of an object's history: what a commit replaced, and when.

use crate::{Record, RecordError, SlotKind};

/// First byte of a row with a whole record; of one that was trimmed to its methods. Others are those of records, which
/// histories held alone before they knew the time.
const WHOLE: u8 = 0xf1;
const METHODS: u8 = 0xf2;

/// What an object was until a commit replaced it.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// When it was replaced, in seconds since 1970 by the clock of the worker that did; `None` in rows that are older than
    /// this field.
    pub replaced: Option<u64>,
    /// Otherwise only what [`Past::trimmed`] leaves is there.
    pub is_whole: bool,
    pub record: Record,
}

impl Past {
    /// The row of a whole record that is replaced now.
    pub fn row(replaced: u64, record: &Record) -> Result<Vec<u8>, RecordError> {
        Self::tagged(WHOLE, replaced, record)
    }

    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        Self::tagged(if self.is_whole { WHOLE } else { METHODS }, self.replaced.unwrap_or(0), &self.record)
    }

    fn tagged(tag: u8, time: u64, record: &Record) -> Result<Vec<u8>, RecordError> {
        Ok([[tag].as_slice(), &time.to_be_bytes(), &record.encode()?].concat())
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&tag @ (WHOLE | METHODS), rest)) => {
                let cut = || RecordError::Damaged("a row of a history is cut off".to_owned());
                let (time, record) = rest.split_first_chunk().ok_or_else(cut)?;
                let time = u64::from_be_bytes(*time);
                let replaced = (time > 0).then_some(time);
                Ok(Self { replaced, is_whole: tag == WHOLE, record: Record::decode(record)? })
            }
            _ => Ok(Self { replaced: None, is_whole: true, record: Record::decode(bytes)? }),
        }
    }

    /// What stays for good once its time has passed: methods and intents that the next revision does not have any more, and
    /// whatever one took the place of; as its cause, that of the next revision, which may go. `None` when the next revision
    /// has the same methods and intents.
    pub fn trimmed(&self, next: &Record) -> Option<Self> {
        let old = &self.record;
        let differs = |a: &Record, b: &Record| {
            a.slots.iter().any(|slot| is_method(&slot.kind) && b.slot(&slot.name) != Some(slot))
        };
        if !differs(old, next) && !differs(next, old) {
            return None;
        }
        let stays = |name: &str| next.slot(name).is_some_and(|slot| is_method(&slot.kind));
        let slots = old.slots.iter().filter(|slot| is_method(&slot.kind) || stays(&slot.name)).cloned().collect();
        Some(Self {
            replaced: self.replaced,
            is_whole: false,
            record: Record { slots, cause: next.cause.clone(), ..Record::default() },
        })
    }
}

fn is_method(kind: &SlotKind) -> bool {
    matches!(kind, SlotKind::Method(_) | SlotKind::Intent(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Slot, Value};

    fn record(slots: &[(&str, SlotKind)]) -> Record {
        let slot = |(name, kind): &(&str, SlotKind)| Slot { name: (*name).to_owned(), kind: kind.clone() };
        Record { name: Some("x".to_owned()), slots: slots.iter().map(slot).collect(), ..Record::default() }
    }

    fn data(n: i64) -> SlotKind {
        SlotKind::Assignable(Value::Int(n))
    }

    fn method(text: &str) -> SlotKind {
        SlotKind::Method(text.to_owned())
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let record = record(&[("n", data(1))]);
        for past in [
            Past { replaced: Some(1_800_000_000), is_whole: true, record: record.clone() },
            Past { replaced: None, is_whole: false, record: record.clone() },
        ] {
            let bytes = past.encode().unwrap();
            assert_eq!(Past::decode(&bytes).unwrap(), past);
            (0..bytes.len()).for_each(|cut| assert!(Past::decode(&bytes[..cut]).is_err(), "cut at {cut}"));
        }
        let earlier = Past { replaced: None, is_whole: true, record: record.clone() };
        assert_eq!(Past::decode(&record.encode().unwrap()).unwrap(), earlier);
    }

    #[test]
    fn methods_stay_and_data_goes() {
        let trimmed = |old: &[(&str, SlotKind)], next: &[(&str, SlotKind)]| {
            let past = Past { replaced: Some(7), is_whole: true, record: record(old) };
            past.trimmed(&record(next)).map(|past| {
                assert!(!past.is_whole && past.replaced == Some(7));
                past.record.slots.into_iter().map(|slot| slot.name).collect::<Vec<_>>()
            })
        };
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let m = || ("m", method("m = ( 1 )"));
        assert_eq!(trimmed(&[("n", data(1)), m()], &[("n", data(2)), m()]), None);
        assert_eq!(trimmed(&[("n", data(1)), m()], &[("n", data(1)), ("m", method("m = ( 2 )"))]), names(&["m"]));
        assert_eq!(trimmed(&[("n", data(1)), m()], &[("n", data(1))]), names(&["m"]));
        assert_eq!(trimmed(&[("n", data(1))], &[("n", data(1)), m()]), names(&[]));
        assert_eq!(trimmed(&[("m", data(1)), ("n", data(1))], &[m()]), names(&["m"]));
    }
}
