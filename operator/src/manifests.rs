//! Manifests in files: the very resources that kubectl applies, read for embedded mode.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use batos_crds::{MindSpec, PrototypeSpec, Resource, UniverseSpec};
use batos_uvm::vm::check_method;

use crate::cli::Error;

/// What the folders say.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests {
    pub universe: String,
    pub spec: UniverseSpec,
    /// By name.
    pub prototypes: BTreeMap<String, PrototypeSpec>,
}

/// Modification times and sizes: whether it is worth reading again.
pub type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

pub fn files(sources: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for source in sources {
        let failed = |e: std::io::Error| format!("{}: {e}", source.display());
        if !std::fs::metadata(source).map_err(failed)?.is_dir() {
            files.push(source.clone());
            continue;
        }
        for entry in std::fs::read_dir(source).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            files.extend(is_yaml.then_some(path));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

pub fn stamp(sources: &[PathBuf]) -> Result<Stamp, Error> {
    let stamped = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let modified = metadata.as_ref().and_then(|m| m.modified().ok());
        (path, modified, metadata.map_or(0, |m| m.len()))
    };
    Ok(files(sources)?.into_iter().map(stamped).collect())
}

/// Reads all files and checks all methods. Every error names file and line.
pub fn read(sources: &[PathBuf]) -> Result<Manifests, Error> {
    let mut universes = BTreeMap::new();
    let mut prototypes = BTreeMap::new();
    let mut codexes = BTreeMap::new();
    for path in files(sources)? {
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let resources = batos_crds::parse(&text)
            .map_err(|e| format!("{}:{}:{}: {}", path.display(), e.line, e.column, e.message))?;
        for resource in resources {
            match resource {
                Resource::Universe(universe) if universe.spec.restore_from.is_some() => {
                    let text = "restoreFrom needs Kubernetes; here `batos import FILE` restores before `batos up`";
                    return Err(format!("{}: Universe {:?}: {text}", path.display(), universe.metadata.name).into());
                }
                Resource::Universe(universe) => {
                    universes.insert(universe.metadata.name, universe.spec);
                }
                Resource::Prototype(prototype) => {
                    let name = prototype.metadata.name;
                    check_methods(&path, &text, &prototype.spec)?;
                    if prototypes.insert(name.clone(), prototype.spec).is_some() {
                        return Err(format!("{}: Prototype {name:?} is there twice", path.display()).into());
                    }
                }
                Resource::Codex(codex) => {
                    let name = codex.metadata.name;
                    if codexes.insert(name.clone(), codex.spec).is_some() {
                        return Err(format!("{}: Codex {name:?} is there twice", path.display()).into());
                    }
                }
                Resource::ModelPool(pool) => {
                    tracing::warn!(file = %path.display(), name = pool.metadata.name, "ModelPools need Kubernetes; not used here");
                }
                Resource::Snapshot(snapshot) => {
                    tracing::warn!(file = %path.display(), name = snapshot.metadata.name, "Snapshots need Kubernetes; not used here");
                }
                Resource::Facet(facet) => {
                    tracing::warn!(file = %path.display(), name = facet.metadata.name, "Facets need Kubernetes; not used here");
                }
            }
        }
    }
    let names: Vec<&String> = universes.keys().collect();
    if names.len() != 1 {
        return Err(
            format!("the manifests define {} universes {names:?}; `batos up` runs exactly one", names.len()).into()
        );
    }
    let Some((universe, mut spec)) = universes.into_iter().next() else { return Err("no universe".into()) };
    for (name, codex) in &codexes {
        match codex.universe == universe {
            true => spec.mind.get_or_insert_with(MindSpec::default).with_codex(name, codex),
            false => tracing::warn!(name, universe = codex.universe, "Codex of another universe; not used here"),
        }
    }
    prototypes.retain(|name, prototype| {
        let ours = prototype.universe == universe;
        if !ours {
            tracing::warn!(name, universe = prototype.universe, "Prototype of another universe; not used here");
        }
        ours
    });
    Ok(Manifests { universe, spec, prototypes })
}

pub fn check_methods(path: &Path, text: &str, spec: &PrototypeSpec) -> Result<(), Error> {
    for slot in &spec.slots {
        let Some(source) = &slot.method else { continue };
        let problem = match check_method(source) {
            Ok(method) if method.selector == slot.name => continue,
            Ok(method) => format!("its source defines {:?}", method.selector),
            Err(error) => error.message,
        };
        let line = line_of(text, &slot.name, source);
        return Err(format!("{}:{line}: slot {:?}: {problem}", path.display(), slot.name).into());
    }
    Ok(())
}

/// The line of the file on which a slot's method begins, else that of the slot's name, else 1.
fn line_of(text: &str, name: &str, source: &str) -> usize {
    let first = source.lines().next().unwrap_or_default().trim();
    let find = |wanted: &str| text.lines().position(|line| !wanted.is_empty() && line.contains(wanted));
    find(first).or_else(|| find(name)).map_or(1, |index| index + 1)
}
