//! Image files: a universe at one moment, in a file that says when it is damaged.
//!
//! A line of JSON with the format and the universe; pages of rows, each a length (32 bits, big-endian) and MessagePack;
//! a length of 0; the number of rows (64 bits, big-endian); the BLAKE3 digest of all bytes before it.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use batos_covenant::{Encoding, encode};
use batos_uvm::universe::{ImageRow, is_object};
use serde::{Deserialize, Serialize};

use crate::cli::Error;

const FORMAT: u32 = 1;
/// Longest page that is read, in bytes.
const MAX_PAGE: usize = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Header {
    batos_image: u32,
    universe: String,
}

/// Writes an image; it appears under its name only when it is whole.
pub struct ImageWriter {
    file: BufWriter<File>,
    path: PathBuf,
    digest: blake3::Hasher,
    bytes: u64,
    rows: u64,
    objects: u64,
}

/// A whole image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    pub rows: u64,
    pub objects: u64,
    pub bytes: u64,
    /// BLAKE3 of the file, as `b3sum` prints it.
    pub digest: String,
}

impl ImageWriter {
    /// Makes the folder too.
    pub fn create(path: &Path, universe: &str) -> Result<Self, Error> {
        let partial = partial(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let file = File::create(&partial).map_err(|e| format!("{}: {e}", partial.display()))?;
        let (file, digest) = (BufWriter::new(file), blake3::Hasher::new());
        let mut image = Self { file, path: path.to_owned(), digest, bytes: 0, rows: 0, objects: 0 };
        let header = serde_json::to_vec(&Header { batos_image: FORMAT, universe: universe.to_owned() })?;
        image.write(&header)?;
        image.write(b"\n")?;
        Ok(image)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(self.file.write_all(bytes)?)
    }

    pub fn page(&mut self, rows: &[ImageRow]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let page = encode(&rows, Encoding::MessagePack)?;
        self.write(&u32::try_from(page.len())?.to_be_bytes())?;
        self.write(&page)?;
        self.rows += rows.len() as u64;
        self.objects += rows.iter().filter(|row| is_object(row)).count() as u64;
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn finish(mut self) -> Result<Written, Error> {
        self.write(&0_u32.to_be_bytes())?;
        self.write(&self.rows.to_be_bytes())?;
        let digest = self.digest.finalize();
        self.write(digest.as_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(partial(&self.path), &self.path)?;
        let digest = self.digest.finalize().to_hex().to_string();
        Ok(Written { rows: self.rows, objects: self.objects, bytes: self.bytes, digest })
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Removes images beside `path` whose names come before its own, and what was left of unfinished ones, so that it and the
/// `keep - 1` before it stay.
pub fn thin_out(path: &Path, keep: usize) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let (mut older, mut leftovers) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let other = entry.map_err(failed)?.path();
        let is = |extension: &str| other.extension().is_some_and(|found| found == extension);
        match other.file_name() < path.file_name() {
            true if is("image") => older.push(other),
            true if is("partial") && other.with_extension("").extension().is_some_and(|e| e == "image") => {
                leftovers.push(other);
            }
            _ => {}
        }
    }
    for gone in superfluous(older, keep).iter().chain(&leftovers) {
        std::fs::remove_file(gone).map_err(|e| format!("{}: {e}", gone.display()))?;
    }
    Ok(())
}

/// Of images that are older than one, those that go so that `keep` are left with it.
pub fn superfluous<T: Ord>(mut older: Vec<T>, keep: usize) -> Vec<T> {
    older.sort();
    older.truncate((older.len() + 1).saturating_sub(keep));
    older
}

/// A file that goes with its handle: an image on its way to a bucket, or from it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        Self(std::env::temp_dir().join(format!("batos-{}.image", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in [self.0.clone(), partial(&self.0)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "left behind");
            }
        }
    }
}

/// An image that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The universe that it is of.
    pub universe: String,
    pub rows: u64,
    /// BLAKE3 of the file.
    pub digest: String,
}

/// Reads an image wholly, handing over its pages. Damage is found at the end at the latest, so read it once to check before
/// anything is done with it.
pub fn read(path: &Path, mut page: impl FnMut(Vec<ImageRow>) -> Result<(), Error>) -> Result<Image, Error> {
    let damaged = |what: &str| -> Error { format!("{}: {what}", path.display()).into() };
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut file = Hashing { inner: BufReader::new(file), digest: blake3::Hasher::new() };
    let mut line = Vec::new();
    file.inner.by_ref().take(4096).read_until(b'\n', &mut line)?;
    file.digest.update(&line);
    let header: Header = serde_json::from_slice(&line).map_err(|_| damaged("this is no image of a universe"))?;
    if header.batos_image != FORMAT {
        return Err(damaged(&format!("image format {}; this batos reads {FORMAT}", header.batos_image)));
    }
    let mut rows = 0;
    loop {
        let length = u32::from_be_bytes(file.take().map_err(|_| damaged("the image is cut off"))?) as usize;
        if length == 0 {
            break;
        }
        if length > MAX_PAGE {
            return Err(damaged("a page is too long: the image is damaged"));
        }
        let mut bytes = vec![0; length];
        file.fill(&mut bytes).map_err(|_| damaged("the image is cut off"))?;
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes.as_slice());
        // A row has no more levels; what is damaged may nest deeper than the stack is.
        reader.set_max_depth(16);
        let read = Vec::<ImageRow>::deserialize(&mut reader);
        let read = read.map_err(|e| damaged(&format!("a page is damaged: {e}")))?;
        rows += read.len() as u64;
        page(read)?;
    }
    let counted = u64::from_be_bytes(file.take().map_err(|_| damaged("the image is cut off"))?);
    let digest = file.digest.finalize();
    let mut written = [0; 32];
    file.inner.read_exact(&mut written).map_err(|_| damaged("the image is cut off"))?;
    file.digest.update(&written);
    match digest.as_bytes() == &written && counted == rows {
        true => Ok(Image { universe: header.universe, rows, digest: file.digest.finalize().to_hex().to_string() }),
        false => Err(damaged("its digest is another: the image is damaged")),
    }
}

struct Hashing {
    inner: BufReader<File>,
    digest: blake3::Hasher,
}

impl Hashing {
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.digest.update(bytes);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u8) -> Vec<ImageRow> {
        (0..count).map(|n| ImageRow { key: vec![n], rev: u64::from(n), value: vec![n; 100] }).collect()
    }

    fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("u.image");
        let mut image = ImageWriter::create(&path, "u").unwrap();
        image.page(&rows(3)).unwrap();
        image.page(&rows(5)).unwrap();
        assert!(!path.exists(), "not there before it is whole");
        let written = image.finish().unwrap();
        assert_eq!((written.rows, written.objects), (8, 0));
        assert_eq!(written.bytes, path.metadata().unwrap().len());
        assert_eq!(written.digest, blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string());
        assert_eq!(read(&path, |_| Ok(())).unwrap().digest, written.digest);
        (folder, path)
    }

    fn load(path: &Path) -> Result<Vec<ImageRow>, String> {
        let mut all = Vec::new();
        let read = read(path, |page| {
            all.extend(page);
            Ok(())
        });
        read.map(|_| all).map_err(|e| e.to_string())
    }

    #[test]
    fn an_image_is_read_as_it_was_written() {
        let (_folder, path) = written();
        assert_eq!(load(&path).unwrap(), [rows(3), rows(5)].concat());
    }

    #[test]
    fn the_last_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let all = ["1.image", "2.image", "2.image.partial", "3.image", "4.image", "5.image", "notes", "1.partial"];
        let left = |keep: usize| {
            all.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
            thin_out(&folder.path().join("4.image"), keep).unwrap();
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(left(1), "1.partial 4.image 5.image notes");
        assert_eq!(left(2), "1.partial 3.image 4.image 5.image notes");
        assert_eq!(left(9), "1.image 1.partial 2.image 3.image 4.image 5.image notes");
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_found() {
        let (_folder, path) = written();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(load(&path).is_err(), "cut at {at}");
            let mut changed = good.clone();
            changed[at] ^= 0x41;
            std::fs::write(&path, changed).unwrap();
            assert!(load(&path).is_err(), "changed at {at}");
        }
    }
}
