//! Three-way merge of one object of the image.

use batos_graph::Record;

pub(super) struct Merged {
    pub record: Record,
    /// Slots that are not as they lived.
    pub changed: Vec<String>,
    /// Slots that the universe changed and that are shipped otherwise now: they live on.
    pub kept: Vec<String>,
}

/// `before` and `now` are as shipped; what is changed in `live` stays.
pub(super) fn merge(before: Option<&Record>, now: &Record, live: Option<&Record>) -> Merged {
    let Some(live) = live else {
        let changed = now.slots.iter().map(|slot| slot.name.clone()).collect();
        return Merged { record: now.clone(), changed, kept: Vec::new() };
    };
    let mut merged =
        Merged { record: Record { slots: Vec::new(), ..live.clone() }, changed: Vec::new(), kept: Vec::new() };
    // Its name leads to the object, and names keep their objects.
    (merged.record.is_trait, merged.record.is_kernel) = (now.is_trait, now.is_kernel);
    let new = now.slots.iter().map(|slot| slot.name.as_str());
    let old = live.slots.iter().map(|slot| slot.name.as_str()).filter(|name| now.slot(name).is_none());
    for name in new.chain(old) {
        let (before, now, live) = (before.and_then(|record| record.slot(name)), now.slot(name), live.slot(name));
        let stays = live != before;
        if stays && live != now && now != before {
            merged.kept.push(name.to_owned());
        }
        let slot = if stays { live } else { now };
        if slot != live {
            merged.changed.push(name.to_owned());
        }
        merged.record.slots.extend(slot.cloned());
    }
    merged
}

#[cfg(test)]
mod tests {
    use batos_graph::{Slot, SlotKind, Value};

    use super::*;

    /// `a1 b2`: slots by name, and their contents.
    fn record(text: &str) -> Record {
        let slot = |word: &str| Slot {
            name: word[..1].to_owned(),
            kind: SlotKind::Constant(Value::Int(word[1..].parse().unwrap())),
        };
        Record { slots: text.split_whitespace().map(slot).collect(), ..Record::default() }
    }

    #[test]
    fn every_slot_is_merged_by_itself() {
        for (before, now, live, merged, kept) in [
            ("a1", "a1", "a1", "a1", ""),
            ("a1", "a2", "a1", "a2", ""),
            ("a1", "a1 b1", "a1", "a1 b1", ""),
            ("a1 b1", "a1", "a1 b1", "a1", ""),
            ("a1 b1", "b1 a1", "a1 b1", "b1 a1", ""),
            // Changed in the universe.
            ("a1", "a1", "a3", "a3", ""),
            ("a1", "a1", "", "", ""),
            ("a1", "a1", "a1 c1", "a1 c1", ""),
            // Changed on both sides.
            ("a1", "a2", "a3", "a3", "a"),
            ("a1", "a2", "", "", "a"),
            ("a1", "", "a3", "a3", "a"),
            ("", "a2", "a3", "a3", "a"),
            // The same way.
            ("a1", "a2", "a2", "a2", ""),
            ("a1", "", "", "", ""),
            ("a1 b1 c1", "a2 b2 d2", "a1 b3 c1 e1", "a2 b3 d2 e1", "b"),
        ] {
            let case = format!("{before} / {now} / {live}");
            let result = merge(Some(&record(before)), &record(now), Some(&record(live)));
            assert_eq!(result.record, record(merged), "{case}");
            assert_eq!(result.kept.join(" "), kept, "{case}");
        }
    }

    #[test]
    fn what_is_new_is_as_shipped() {
        let result = merge(None, &record("a1 b2"), None);
        assert_eq!((result.record, result.changed.join(" ")), (record("a1 b2"), "a b".to_owned()));
        // An object of unknown origin under its id: nothing of it is lost.
        let result = merge(None, &record("a1 b2"), Some(&record("a1 b3 c4")));
        assert_eq!((result.record, result.kept.join(" ")), (record("a1 b3 c4"), "b".to_owned()));
    }
}
