//! The redo log: what makes a commit durable with one small write and one sync. redb's own pages follow at the next
//! checkpoint, and after a crash by replay.
//!
//! A record is one group of batches: `digest(16) · length(4) · sequence(8) · rows`. Its digest is keyed with an identity
//! that redb's file holds, new at every opening, so neither a torn record nor one of another store or opening is taken for
//! a record. Sequences grow by one; the log starts again from its beginning after a checkpoint, and what is left of an
//! earlier round ends the replay because its sequence is not the next one.

use std::{io, ops::Range, sync::Arc};

use redb::StorageBackend;

use crate::{Rev, StoreError};

/// The file grows by so many zeroes at once: a write within the file needs no sync of its length.
const GROWTH: u64 = 1 << 20;
const PAGE: usize = 4096;
const HEADER: usize = 28;
/// Length of a row that stands for a deleted one.
const DELETED: u32 = u32::MAX;

pub(super) type File = Arc<dyn StorageBackend>;

pub(super) struct Log {
    file: File,
    identity: [u8; 32],
    /// Where the next record goes.
    at: u64,
    len: u64,
    /// Bytes between two checkpoints.
    max: u64,
}

/// Rows of one record as they are collected.
#[derive(Default)]
pub(super) struct Rows(Vec<u8>);

impl Rows {
    pub fn put(&mut self, key: &[u8], rev: Rev, bytes: &[u8]) {
        let rev = rev.to_be_bytes();
        self.add(key, (rev.len() + bytes.len()) as u32);
        self.0.extend_from_slice(&rev);
        self.0.extend_from_slice(bytes);
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.add(key, DELETED);
    }

    fn add(&mut self, key: &[u8], row: u32) {
        self.0.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.0.extend_from_slice(&row.to_le_bytes());
        self.0.extend_from_slice(key);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Calls `row` with each key and its row, `None` when it is deleted.
pub(super) fn each_row(
    mut rows: &[u8],
    mut row: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let short = || StoreError::Damaged("a record of the log ends early".to_owned());
    while !rows.is_empty() {
        let (key, rest) = rows.split_first_chunk::<4>().ok_or_else(short)?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key) as usize).ok_or_else(short)?;
        let len = u32::from_le_bytes(*len);
        let (value, rest) = match len {
            DELETED => (None, rest),
            len => rest.split_at_checked(len as usize).map(|(value, rest)| (Some(value), rest)).ok_or_else(short)?,
        };
        row(key, value)?;
        rows = rest;
    }
    Ok(())
}

impl Log {
    pub fn open(file: File, identity: u64, max: u64) -> io::Result<Self> {
        let identity = *blake3::hash(&identity.to_le_bytes()).as_bytes();
        // A crash may have left a part of a page.
        let len = file.len()? / PAGE as u64 * PAGE as u64;
        Ok(Self { len, file, identity, at: 0, max })
    }

    /// Bytes between two checkpoints.
    pub fn max(&self) -> u64 {
        self.max
    }

    pub fn fits(&self, rows: &Rows) -> bool {
        self.at + (HEADER + rows.0.len()) as u64 <= self.max
    }

    /// Writes a record without a sync.
    pub fn append(&mut self, sequence: u64, rows: &Rows) -> io::Result<()> {
        let mut record = vec![0; 16];
        record.extend_from_slice(&(rows.0.len() as u32).to_le_bytes());
        record.extend_from_slice(&sequence.to_le_bytes());
        record.extend_from_slice(&rows.0);
        let (digest, hashed) = record.split_at_mut(16);
        digest.copy_from_slice(&self.digest(hashed));
        let end = self.at + record.len() as u64;
        if end > self.len {
            let len = end.next_multiple_of(GROWTH);
            // Page by page: one large write would make large folios of the page cache, and each record dirty a whole one.
            while self.len < len {
                self.file.write(self.len, &[0; PAGE])?;
                self.len += PAGE as u64;
            }
        }
        self.file.write(self.at, &record)?;
        self.at = end;
        Ok(())
    }

    fn digest(&self, hashed: &[u8]) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(blake3::keyed_hash(&self.identity, hashed).as_bytes().split_at(16).0);
        short
    }

    /// From the beginning again: everything so far has reached redb's pages.
    pub fn restart(&mut self) {
        self.at = 0;
    }

    /// Rows of the record after `sequence`, if the log goes on so far.
    pub fn next(&mut self, sequence: u64) -> io::Result<Option<Vec<u8>>> {
        let mut header = [0; HEADER];
        let Some(range) = self.range(HEADER) else { return Ok(None) };
        self.file.read(range.start, &mut header)?;
        let (digest, hashed) = header.split_at(16);
        let Some((length, rest)) = hashed.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(range) = self.range(HEADER + length) else { return Ok(None) };
        if *rest != (sequence + 1).to_le_bytes() {
            return Ok(None);
        }
        let mut record = hashed.to_vec();
        record.resize(hashed.len() + length, 0);
        let (_, rows) = record.split_at_mut(hashed.len());
        self.file.read(range.start + HEADER as u64, rows)?;
        let rows = rows.to_vec();
        Ok((self.digest(&record) == *digest).then(|| {
            self.at = range.end;
            rows
        }))
    }

    fn range(&self, length: usize) -> Option<Range<u64>> {
        let end = self.at + length as u64;
        (end <= self.len).then_some(self.at..end)
    }
}
