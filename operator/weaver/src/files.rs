//! Models and adapters in folders. Reads configurations and headers only, whatever the size of the weights.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::model_config::{LONGEST_CONFIG, Model};
use crate::safetensors::Header;

impl Model {
    /// Reads a model's folder: `config.json` and the headers of all `*.safetensors`; without such, the weights are
    /// computed.
    ///
    /// # Errors
    /// `Io`, and what [`Model::parse`] and [`Header::read`] refuse.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut model = Self::open_config(&folder.join("config.json"))?;
        let mut stored = None;
        for path in tensors(folder)? {
            let header = header(&path)?;
            // A tied head is stored by some, and loaded by none.
            let twice = header.tensors.get("lm_head.weight").filter(|_| model.tied).map_or(0, |tensor| tensor.bytes);
            stored = Some(header.bytes().saturating_sub(twice).saturating_add(stored.unwrap_or(0)));
        }
        model.stored = stored;
        Ok(model)
    }

    /// Reads a `config.json` alone; the weights are computed.
    ///
    /// # Errors
    /// `Io`, and what [`Model::parse`] refuses.
    pub fn open_config(path: &Path) -> Result<Self> {
        Self::parse(&path.display().to_string(), &config(path)?)
    }
}

impl Adapter {
    /// Reads an adapter's folder: `adapter_config.json` and the header of `adapter_model.safetensors`.
    ///
    /// # Errors
    /// `Io`, and what [`Adapter::parse`] and [`Header::read`] refuse.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = config(&folder.join("adapter_config.json"))?;
        let header = header(&folder.join("adapter_model.safetensors"))?;
        Self::parse(&folder.display().to_string(), &config, &header)
    }
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::Io { place: path.display().to_string(), problem: error.to_string() }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|e| io(path, &e))?;
    let about = file.metadata().map_err(|e| io(path, &e))?;
    if !about.is_file() {
        return Err(Error::Io { place: path.display().to_string(), problem: "is no file".to_owned() });
    }
    Ok((file, about.len()))
}

fn config(path: &Path) -> Result<Vec<u8>> {
    let (file, bytes) = open(path)?;
    if bytes > LONGEST_CONFIG {
        let problem = format!("{bytes} bytes long, at most {LONGEST_CONFIG} are read");
        return Err(Error::Json { place: path.display().to_string(), problem });
    }
    let mut text = Vec::new();
    file.take(LONGEST_CONFIG).read_to_end(&mut text).map_err(|e| io(path, &e))?;
    Ok(text)
}

fn header(path: &Path) -> Result<Header> {
    let (mut file, bytes) = open(path)?;
    Header::read(&path.display().to_string(), &mut file, bytes)
}

fn tensors(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| io(folder, &e))? {
        let path = entry.map_err(|e| io(folder, &e))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
