//! What the server keeps: the registry of names that the front end has, and the two caches of the worker behind it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::adapter::{self, Defect};
use crate::script::Script;

/// Sizes that the command line sets. Ranks and tokens are counts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_loras: usize,
    pub max_cpu_loras: usize,
    pub max_lora_rank: u32,
    pub max_model_len: u32,
}

/// A refusal, of which the wire's status and type follow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    InvalidUserInput(String),
    /// What vLLM's validation says of a request to a model.
    BadRequest {
        message: String,
        param: Option<&'static str>,
    },
    /// `param` is what the error body names.
    NotFound {
        message: String,
        param: Option<&'static str>,
    },
    Internal(String),
}

impl Refusal {
    /// The engine behind the server has died.
    pub(crate) fn dead() -> Self {
        Self::Internal("EngineCore encountered an issue. See stack trace (above) for the root cause.".to_owned())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub name: String,
    pub path: String,
    /// Counts from 1 in a process; the caches know adapters by it.
    id: u64,
}

#[derive(Debug, Default)]
struct State {
    registered: Vec<Adapter>,
    last_id: u64,
    /// Ids, the one used longest ago first.
    host: VecDeque<u64>,
    gpu: VecDeque<u64>,
    in_flight: BTreeMap<String, usize>,
    /// Requests that are answered, of the base model as well.
    running: usize,
    dead: bool,
    /// Series of the metric: adapters in flight → seconds since 1970 when that was so last.
    seen: BTreeMap<String, f64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// What requests call the base model.
    pub base: String,
    /// Where it was read from.
    pub root: String,
    pub limits: Limits,
    pub script: Script,
    state: Arc<Mutex<State>>,
    /// Told when the engine dies: then the process ends.
    pub died: Arc<Notify>,
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Engine {
    pub(crate) fn new(base: String, root: String, limits: Limits) -> Self {
        Self { base, root, limits, script: Script::default(), state: Arc::default(), died: Arc::default() }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    pub(crate) fn running(&self) -> usize {
        self.state().running
    }

    /// Held while files are read: loading stalls everybody, as in the engine's own loop.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registered(&self) -> Vec<Adapter> {
        self.state().registered.clone()
    }

    pub(crate) fn load(&self, name: &str, path: &str, in_place: bool) -> Result<String, Refusal> {
        if name.is_empty() || path.is_empty() {
            return Err(Refusal::InvalidUserInput("Both 'lora_name' and 'lora_path' must be provided.".to_owned()));
        }
        let mut state = self.state();
        let known = state.registered.iter().find(|adapter| adapter.name == name).map(|adapter| adapter.id);
        if known.is_some() && !in_place {
            return Err(Refusal::InvalidUserInput(format!(
                "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set \
                 'load_inplace' to True."
            )));
        }
        if name == self.base {
            return Err(Refusal::InvalidUserInput(format!(
                "The lora adapter '{name}' conflicts with a served base model."
            )));
        }
        let id = known.unwrap_or_else(|| {
            state.last_id += 1;
            state.last_id
        });
        let adapter = Adapter { name: name.to_owned(), path: path.to_owned(), id };
        if known.is_some() {
            state.host.retain(|resident| *resident != id);
        }
        self.make_resident(&mut state, &adapter).map_err(|defect| match defect {
            Defect::NotFound => {
                let message = format!("Loading lora {name} failed: No adapter found for {path}");
                Refusal::NotFound { message: without_paths(&message), param: None }
            }
            Defect::Refused(why) => Refusal::Internal(without_paths(&format!(
                "Call to add_lora method failed: Worker failed with error '{why}', please check the stack trace above for \
                 the root cause"
            ))),
        })?;
        state.registered.retain(|adapter| adapter.id != id);
        state.registered.push(adapter);
        Ok(format!("Success: LoRA adapter '{name}' added successfully."))
    }

    /// Forgets the name. The weights stay where they are.
    pub(crate) fn unload(&self, name: &str) -> Result<String, Refusal> {
        if name.is_empty() {
            return Err(Refusal::InvalidUserInput(
                "'lora_name' needs to be provided to unload a LoRA adapter.".to_owned(),
            ));
        }
        let mut state = self.state();
        let before = state.registered.len();
        state.registered.retain(|adapter| adapter.name != name);
        if state.registered.len() == before {
            let message = format!("The lora adapter '{name}' cannot be found.");
            return Err(Refusal::NotFound { message, param: None });
        }
        Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
    }

    /// A request for `model` begins: an adapter that is not resident any more is read again, and if that fails the engine
    /// dies. The guard ends the request.
    pub(crate) fn begin(&self, model: &str) -> Result<InFlight, Refusal> {
        let mut state = self.state();
        let adapter = state.registered.iter().find(|adapter| adapter.name == model).cloned();
        if let Some(adapter) = &adapter {
            if state.dead || self.make_resident(&mut state, adapter).is_err() {
                state.dead = true;
                self.died.notify_one();
                return Err(Refusal::dead());
            }
            *state.in_flight.entry(adapter.name.clone()).or_default() += 1;
        } else if model != self.base {
            let message = format!("The model `{model}` does not exist. Valid aliases: {}.", self.base);
            return Err(Refusal::NotFound { message, param: Some("model") });
        }
        state.running += 1;
        state.record();
        drop(state);
        Ok(InFlight { engine: self.clone(), adapter: adapter.map(|adapter| adapter.name) })
    }

    /// (adapters in flight, separated by commas; when that was so last, in seconds since 1970)
    pub(crate) fn lora_info(&self) -> Vec<(String, f64)> {
        self.state().seen.iter().map(|(adapters, when)| (adapters.clone(), *when)).collect()
    }

    fn make_resident(&self, state: &mut State, adapter: &Adapter) -> Result<(), Defect> {
        if !state.host.contains(&adapter.id) {
            // The oldest goes before the new one is read, as in the engine: a failed load costs a place all the same.
            if state.host.len() >= self.limits.max_cpu_loras
                && let Some(oldest) = state.host.pop_front()
            {
                state.gpu.retain(|id| *id != oldest);
            }
            adapter::check(Path::new(&adapter.path), self.limits.max_lora_rank)?;
        }
        touch(&mut state.host, adapter.id, self.limits.max_cpu_loras);
        touch(&mut state.gpu, adapter.id, self.limits.max_loras);
        Ok(())
    }
}

/// Paths of a Linux system's usual folders are hidden in errors, others are not.
fn without_paths(message: &str) -> String {
    const FOLDERS: [&str; 9] = ["home", "usr", "opt", "var", "tmp", "root", "lib", "mnt", "srv"];
    let (mut text, mut rest) = (String::new(), message);
    while let Some((before, path)) = rest.split_once('/') {
        let end = path.find(|c: char| !(c.is_alphanumeric() || "_.-/".contains(c))).unwrap_or(path.len());
        let (path, after) = path.split_at(end);
        text += before;
        match path.split_once('/') {
            Some((folder, _)) if FOLDERS.contains(&folder) => text += "<path>",
            _ => text.extend(["/", path]),
        }
        rest = after;
    }
    text + rest
}

fn touch(cache: &mut VecDeque<u64>, id: u64, capacity: usize) {
    cache.retain(|resident| *resident != id);
    if cache.len() >= capacity {
        cache.pop_front();
    }
    cache.push_back(id);
}

impl State {
    fn record(&mut self) {
        let adapters: Vec<&str> = self.in_flight.keys().map(String::as_str).collect();
        let adapters = adapters.join(",");
        self.seen.insert(adapters, now());
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct InFlight {
    engine: Engine,
    adapter: Option<String>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.engine.state();
        state.running -= 1;
        if let Some(name) = &self.adapter
            && let Some(count) = state.in_flight.get_mut(name)
        {
            *count -= 1;
            if *count == 0 {
                state.in_flight.remove(name);
            }
        }
        state.record();
    }
}
