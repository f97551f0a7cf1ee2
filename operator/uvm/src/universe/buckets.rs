//! Large collections as those outside see them.

use std::sync::Arc;

use batos_graph::{
    Payload, Record, Value,
    bucket::{Child, Content},
};

use super::{UniverseError, View};

/// The first leaf of a collection in buckets; `None` for other objects.
pub(super) async fn first(view: &View<'_>, record: &Record) -> Result<Option<Arc<Record>>, UniverseError> {
    let tree = match &record.payload {
        Payload::BigArray(array) => &array.elements,
        Payload::BigTable(table) => &table.entries,
        _ => return Ok(None),
    };
    let mut next = leftmost(&tree.top);
    for _ in 0..=tree.height {
        let Some(Value::Ref(id)) = next else { break };
        // What was found may be newer than the collection: this is a glance, not a moment.
        let Some((_, record)) = view.object(id).await? else { break };
        let Payload::Bucket(bucket) = &record.payload else { break };
        let Content::Branches(children) = &bucket.content else { return Ok(Some(record)) };
        next = leftmost(children);
    }
    Ok(None)
}

fn leftmost(children: &[Child<Value>]) -> Option<Value> {
    children.iter().find_map(|child| child.bucket.clone())
}
