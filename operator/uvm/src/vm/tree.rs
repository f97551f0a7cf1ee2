//! Trees of buckets in a turn's heap: see `batos_graph::bucket`. Buckets are objects that are loaded when they are needed
//! and written when they were changed; what is not on the way to a change is neither.
//!
//! `reach` touches the way to an item and may stop for a bucket that is not there. What changes a tree takes what `reach`
//! found and needs no more than that, so that an operation on several trees reaches in all of them before it changes one.

use std::ops::Range;

use batos_covenant::ErrorKind;
use batos_graph::bucket::{self, Branches, Content, Entries, Entry, Kind, Places, TOP, cuts, total};

use super::{
    VmError,
    error::Stop,
    heap::{Body, Heap},
    map::reserved,
    value::{Handle, Kind as ValueKind, Value},
};

pub(super) type Bucket = bucket::Bucket<Value>;
pub(super) type Child = bucket::Child<Value>;
pub(super) type Tree = bucket::Tree<Value>;
type Items<K> = Vec<<K as Kind>::Item<Value>>;

/// Bytes charged for a child.
const CHILD_BYTES: usize = 32;
/// Buckets that are asked for at once, at least and at most, when many are needed.
const AHEAD: Range<usize> = 16..1024;

/// Where to go in a tree.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// The item of this number, from 0.
    Item(u64),
    /// Between items, where so many lie before.
    Gap(u64),
    /// In a tree of places behind all that have no greater hash.
    Hash(u64),
}

/// The way to an item whose buckets are all loaded.
pub(super) struct Reached {
    /// Numbers of the children on the way, from the top.
    path: Vec<usize>,
    /// `None`: there is no leaf, but a hole or an empty tree.
    leaf: Option<Handle>,
    /// Number of the item in the leaf.
    offset: usize,
}

pub(super) fn tree_bytes(tree: &Tree) -> usize {
    tree.top.len() * CHILD_BYTES
}

pub(super) fn bucket_bytes(bucket: &Bucket) -> usize {
    let item = match bucket.content {
        Content::Branches(_) => CHILD_BYTES,
        Content::Elements(_) => 8,
        Content::Entries(_) => 24,
        Content::Places(_) => 16,
    };
    bucket.len() * item
}

fn broken() -> Stop {
    Stop::Fail(VmError::new(ErrorKind::Internal, "a collection's buckets do not fit together"))
}

impl Heap {
    fn bucket(&self, handle: Handle) -> Result<&Bucket, Stop> {
        match &self.get(handle)?.body {
            Body::Bucket(bucket) => Ok(bucket),
            _ => Err(broken()),
        }
    }

    fn items<K: Kind>(&self, handle: Handle) -> Result<&Items<K>, Stop> {
        K::items(&self.bucket(handle)?.content).ok_or_else(broken)
    }

    /// Items that are about to change.
    fn items_mut<K: Kind>(&mut self, handle: Handle) -> Result<&mut Items<K>, Stop> {
        let object = self.get_mut(handle)?;
        object.dirty = true;
        match &mut object.body {
            Body::Bucket(bucket) => K::items_mut(&mut bucket.content).ok_or_else(broken),
            _ => Err(broken()),
        }
    }

    /// Children of the last of these buckets, or of the top.
    fn children_mut<'a>(&'a mut self, tree: &'a mut Tree, nodes: &[Handle]) -> Result<&'a mut Vec<Child>, Stop> {
        match nodes.last() {
            Some(node) => self.items_mut::<Branches>(*node),
            None => Ok(&mut tree.top),
        }
    }

    /// A child of the last of these buckets, or of the top.
    fn child_mut<'a>(
        &'a mut self,
        tree: &'a mut Tree,
        nodes: &[Handle],
        path: &[usize],
    ) -> Result<&'a mut Child, Stop> {
        let at = path.get(nodes.len()).copied().unwrap_or(usize::MAX);
        self.children_mut(tree, nodes)?.get_mut(at).ok_or_else(broken)
    }

    fn new_bucket(&mut self, owner: u64, content: Content<Value>) -> Result<Value, Stop> {
        let bucket = Bucket { owner, content };
        self.charge(bucket_bytes(&bucket))?;
        self.allocate(reserved::EMPTY, Body::Bucket(Box::new(bucket)), &[]).map(Value::object)
    }

    pub fn reach<K: Kind>(&self, tree: &Tree, mut at: At) -> Result<Reached, Stop> {
        let mut path = Vec::with_capacity(tree.height as usize + 1);
        let mut children = &tree.top;
        loop {
            let place = choose(children, &mut at);
            path.push(place);
            let Some(handle) = children.get(place).and_then(|child| child.bucket?.as_object()) else {
                return Ok(Reached { path, leaf: None, offset: 0 });
            };
            if path.len() > tree.height as usize {
                let items = self.items::<K>(handle)?;
                let offset = match at {
                    At::Item(rest) | At::Gap(rest) => usize::try_from(rest).unwrap_or(usize::MAX),
                    At::Hash(hash) => items.partition_point(|item| K::low(item) <= hash),
                };
                return Ok(Reached { path, leaf: Some(handle), offset });
            }
            children = self.items::<Branches>(handle)?;
        }
    }

    /// The item that was reached; `None` in a hole.
    pub fn item<K: Kind>(&self, reached: &Reached) -> Result<Option<&K::Item<Value>>, Stop> {
        match reached.leaf {
            Some(leaf) => self.items::<K>(leaf)?.get(reached.offset).map(Some).ok_or_else(broken),
            None => Ok(None),
        }
    }

    /// Items in their order, without those in holes.
    pub fn items_of<K: Kind>(&self, tree: &Tree, range: Range<u64>) -> Result<Items<K>, Stop>
    where
        K::Item<Value>: Clone,
    {
        let mut gathered = Gathered::<K> { items: Vec::new(), leaves: 0, missing: Vec::new() };
        self.gather(&tree.top, tree.height, range, &mut gathered)?;
        match gathered.missing.is_empty() {
            true => Ok(gathered.items),
            false => Err(Stop::Objects(gathered.missing)),
        }
    }

    fn gather<K: Kind>(
        &self,
        children: &[Child],
        height: u32,
        mut range: Range<u64>,
        to: &mut Gathered<K>,
    ) -> Result<(), Stop>
    where
        K::Item<Value>: Clone,
    {
        for child in children {
            let part = range.start.min(child.count)..range.end.min(child.count);
            range = range.start.saturating_sub(child.count)..range.end.saturating_sub(child.count);
            let Some(handle) = child.bucket.and_then(Value::as_object).filter(|_| !part.is_empty()) else { continue };
            match self.get(handle) {
                Ok(_) if height > 0 => self.gather(self.items::<Branches>(handle)?, height - 1, part, to)?,
                Ok(_) => {
                    let part = part.start as usize..part.end as usize;
                    to.items.extend_from_slice(self.items::<K>(handle)?.get(part).ok_or_else(broken)?);
                    to.leaves += 1;
                }
                Err(Stop::Object(id)) => {
                    to.missing.push(id);
                    // As many again as are there already: so it starts again a few times only, and does not ask for
                    // much more than it needs.
                    if to.missing.len() >= to.leaves.clamp(AHEAD.start, AHEAD.end) {
                        return Err(Stop::Objects(std::mem::take(&mut to.missing)));
                    }
                }
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// Shows places of entries with this hash, and how they were reached.
    pub fn places(&self, tree: &Tree, hash: u64, mut visit: impl FnMut(u64, &dyn Fn() -> Reached)) -> Result<(), Stop> {
        self.seek(&tree.top, tree.height, hash, &mut Vec::new(), &mut visit)
    }

    fn seek(
        &self,
        children: &[Child],
        height: u32,
        hash: u64,
        path: &mut Vec<usize>,
        visit: &mut impl FnMut(u64, &dyn Fn() -> Reached),
    ) -> Result<(), Stop> {
        // The last one that begins with a smaller hash may end with this one.
        let first = children.partition_point(|child| child.low < hash).saturating_sub(1);
        for (at, child) in children.iter().enumerate().skip(first) {
            let Some(handle) = child.bucket.and_then(Value::as_object) else { return Err(broken()) };
            if at > first && child.low > hash {
                break;
            }
            path.push(at);
            if height > 0 {
                self.seek(self.items::<Branches>(handle)?, height - 1, hash, path, visit)?;
            } else {
                let places = self.items::<Places>(handle)?;
                let first = places.partition_point(|place| place.0 < hash);
                let same = places.iter().enumerate().skip(first).take_while(|(_, place)| place.0 == hash);
                for (offset, (_, place)) in same {
                    visit(*place, &|| Reached { path: path.clone(), leaf: Some(handle), offset });
                }
            }
            path.pop();
        }
        Ok(())
    }

    /// Makes the buckets on the way the owner's own.
    fn own(&mut self, owner: u64, tree: &mut Tree, path: &[usize]) -> Result<Vec<Handle>, Stop> {
        let mut nodes = Vec::with_capacity(path.len());
        for at in path {
            let children = match nodes.last() {
                Some(node) => self.items::<Branches>(*node)?,
                None => &tree.top,
            };
            let Some(node) = children.get(*at).and_then(|child| child.bucket?.as_object()) else { break };
            let bucket = self.bucket(node)?;
            if bucket.owner == owner {
                nodes.push(node);
                continue;
            }
            let copy = self.new_bucket(owner, bucket.content.clone())?;
            self.child_mut(tree, &nodes, path)?.bucket = Some(copy);
            nodes.extend(copy.as_object());
        }
        Ok(nodes)
    }

    /// Corrects the counts on the way to the last of these buckets.
    fn count(&mut self, tree: &mut Tree, nodes: &[Handle], path: &[usize], more: i64) -> Result<(), Stop> {
        for level in 0..nodes.len() {
            let above = nodes.split_at(level).0;
            let child = self.child_mut(tree, above, path)?;
            child.count = child.count.saturating_add_signed(more);
        }
        Ok(())
    }

    /// Puts an item where a gap was reached; `appended`: behind all others.
    pub fn insert_item<K: Kind>(
        &mut self,
        owner: u64,
        tree: &mut Tree,
        reached: &Reached,
        item: K::Item<Value>,
        appended: bool,
    ) -> Result<(), Stop> {
        let (count, low) = (K::count(&item), K::low(&item));
        let nodes = self.own(owner, tree, &reached.path)?;
        if count > 0 {
            self.count(tree, &nodes, &reached.path, count.cast_signed())?;
        }
        match nodes.last().filter(|_| reached.leaf.is_some()) {
            Some(leaf) => {
                let items = self.items_mut::<K>(*leaf)?;
                items.insert(reached.offset.min(items.len()), item);
            }
            None => {
                // Beside the hole, a way down to a leaf of its own.
                let mut bucket = self.new_bucket(owner, K::content(vec![item]))?;
                for _ in nodes.len()..tree.height as usize {
                    let child = Child { bucket: Some(bucket), count, low };
                    bucket = self.new_bucket(owner, Content::Branches(vec![child]))?;
                }
                self.children_mut(tree, &nodes)?.push(Child { bucket: Some(bucket), count, low });
            }
        }
        self.settle::<K>(owner, tree, &reached.path, nodes, appended)
    }

    /// Replaces the item that was reached.
    pub fn put_item<K: Kind>(
        &mut self,
        owner: u64,
        tree: &mut Tree,
        reached: &Reached,
        item: K::Item<Value>,
    ) -> Result<(), Stop> {
        let nodes = self.own(owner, tree, &reached.path)?;
        let leaf = nodes.last().copied().ok_or_else(broken)?;
        *self.items_mut::<K>(leaf)?.get_mut(reached.offset).ok_or_else(broken)? = item;
        self.settle::<K>(owner, tree, &reached.path, nodes, false)
    }

    /// Takes the item out that was reached; buckets that become empty go.
    pub fn remove_item<K: Kind>(
        &mut self,
        owner: u64,
        tree: &mut Tree,
        reached: &Reached,
    ) -> Result<K::Item<Value>, Stop> {
        let mut nodes = self.own(owner, tree, &reached.path)?;
        let items = self.items_mut::<K>(nodes.last().copied().ok_or_else(broken)?)?;
        if reached.offset >= items.len() {
            return Err(broken());
        }
        let item = items.remove(reached.offset);
        let count = K::count(&item);
        if count > 0 {
            self.count(tree, &nodes, &reached.path, -count.cast_signed())?;
        }
        while let Some(node) = nodes.pop() {
            if !self.bucket(node)?.is_empty() {
                return Ok(item);
            }
            let at = reached.path.get(nodes.len()).copied().unwrap_or(usize::MAX);
            let children = self.children_mut(tree, &nodes)?;
            if at < children.len() {
                children.remove(at);
            }
        }
        if tree.top.is_empty() {
            tree.height = 0;
        }
        Ok(item)
    }

    /// Takes the entry out that was reached; the places of the others stay as they are. Buckets without entries become
    /// holes.
    pub fn remove_entry(&mut self, owner: u64, tree: &mut Tree, reached: &Reached) -> Result<Entry<Value>, Stop> {
        let mut nodes = self.own(owner, tree, &reached.path)?;
        let items = self.items_mut::<Entries>(nodes.last().copied().ok_or_else(broken)?)?;
        let entry = items.get_mut(reached.offset).ok_or_else(broken)?.take();
        let mut is_hole = items.iter().all(Option::is_none);
        while is_hole && nodes.pop().is_some() {
            self.child_mut(tree, &nodes, &reached.path)?.bucket = None;
            let children = self.children_mut(tree, &nodes)?;
            children.dedup_by(|next, child| {
                let both = next.bucket.is_none() && child.bucket.is_none();
                child.count = child.count.saturating_add(if both { next.count } else { 0 });
                both
            });
            is_hole = children.iter().all(|child| child.bucket.is_none());
        }
        Ok(entry)
    }

    /// Cuts what has become too large, from a leaf upwards.
    fn settle<K: Kind>(
        &mut self,
        owner: u64,
        tree: &mut Tree,
        path: &[usize],
        mut nodes: Vec<Handle>,
        appended: bool,
    ) -> Result<(), Stop> {
        while let Some(node) = nodes.pop() {
            let cut = match nodes.len() == tree.height as usize {
                true => self.cut::<K>(owner, node, appended)?,
                false => self.cut::<Branches>(owner, node, appended)?,
            };
            let Some((rest, siblings)) = cut else { continue };
            self.child_mut(tree, &nodes, path)?.count = rest;
            let at = path.get(nodes.len()).copied().unwrap_or(usize::MAX);
            let children = self.children_mut(tree, &nodes)?;
            let behind = (at + 1).min(children.len());
            children.splice(behind..behind, siblings);
        }
        if tree.top.len() > TOP {
            let top = std::mem::take(&mut tree.top);
            let (count, low) = (total::<Branches, Value>(&top), top.first().map_or(0, |child| child.low));
            let bucket = Some(self.new_bucket(owner, Content::Branches(top))?);
            *tree = Tree { height: tree.height + 1, top: vec![Child { bucket, count, low }] };
        }
        Ok(())
    }

    /// Cuts a bucket if it is too large: what it counts then, and the buckets that follow it.
    fn cut<K: Kind>(&mut self, owner: u64, node: Handle, appended: bool) -> Result<Option<(u64, Vec<Child>)>, Stop> {
        let mut ends = cuts::<K, Value>(self.items::<K>(node)?, |value| self.stored_bytes(*value), appended);
        ends.pop();
        if ends.is_empty() {
            return Ok(None);
        }
        let mut siblings = Vec::with_capacity(ends.len());
        for start in ends.into_iter().rev() {
            let items = self.items_mut::<K>(node)?.split_off(start);
            let (count, low) = (total::<K, Value>(&items), items.first().map_or(0, K::low));
            let bucket = Some(self.new_bucket(owner, K::content(items))?);
            siblings.push(Child { bucket, count, low });
        }
        siblings.reverse();
        Ok(Some((total::<K, Value>(self.items::<K>(node)?), siblings)))
    }

    /// What a value takes in a record, in bytes, at most.
    fn stored_bytes(&self, value: Value) -> usize {
        match value.kind() {
            ValueKind::Symbol(symbol) => 16 + self.symbols.name(symbol).len(),
            ValueKind::Object(handle) => match self.get(handle).map(|object| &object.body) {
                Ok(Body::Str(text)) => 16 + text.len(),
                // Three bits give less than one digit.
                Ok(body @ (Body::Big(_) | Body::Fraction(_))) => 64 + body.bytes() * 3,
                _ => 40,
            },
            _ => 16,
        }
    }
}

struct Gathered<K: Kind> {
    items: Items<K>,
    leaves: usize,
    missing: Vec<batos_graph::ObjectId>,
}

/// The child to go on in; `at` becomes what to look for there.
fn choose(children: &[Child], at: &mut At) -> usize {
    match at {
        At::Item(rest) | At::Gap(rest) if children.is_empty() => {
            *rest = 0;
            0
        }
        At::Item(rest) => skip(children, rest, |rest, count| rest < count),
        At::Gap(rest) => skip(children, rest, |rest, count| rest <= count),
        At::Hash(hash) => children.partition_point(|child| child.low <= *hash).saturating_sub(1),
    }
}

fn skip(children: &[Child], rest: &mut u64, is_here: impl Fn(u64, u64) -> bool) -> usize {
    for (place, child) in children.iter().enumerate() {
        if is_here(*rest, child.count) {
            return place;
        }
        *rest -= child.count;
    }
    usize::MAX
}
