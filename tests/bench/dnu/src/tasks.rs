//! The tasks, as `tasks.py` tells them, and the recorded candidates.

use std::{fs, path::Path};

use batos_bench_store::Failure;
use batos_covenant::{Example, SendCommand, Wire};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Task {
    pub name: String,
    pub selector: String,
    /// What the prompt says, and what it calls the arguments.
    pub text: String,
    pub arguments: Vec<String>,
    /// How many pairs the prompt shows.
    pub shown: usize,
    /// Those that the prompt shows come first.
    pub pairs: Vec<Pair>,
}

/// With these arguments the right method answers so.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Pair {
    pub arguments: Vec<Wire>,
    pub answer: Wire,
}

impl Task {
    /// The first pairs, as examples.
    pub fn examples(&self, count: usize) -> Vec<Example> {
        let examples = self.pairs.iter().take(count).map(|pair| Example {
            given: Default::default(),
            send: SendCommand { selector: self.selector.clone(), arguments: pair.arguments.clone() },
            answers: Some(pair.answer.clone()),
            leaves: Default::default(),
            hidden: false,
        });
        examples.collect()
    }
}

/// A task with what was recorded for it.
#[derive(Debug)]
pub struct Recorded {
    pub task: Task,
    pub right: String,
    /// Written by itself.
    pub other: String,
    pub wrong: Vec<String>,
}

/// All tasks of `file`.
pub fn all(file: &Path) -> Result<Vec<Task>, Failure> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// The tasks of `file` that `folder` has right answers for: `NAME.bt`, and another one in `NAME.other.bt`. Further
/// `NAME.….bt` are wrong ones.
pub fn recorded(file: &Path, folder: &Path) -> Result<Vec<Recorded>, Failure> {
    let tasks = all(file)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let read = |name: &String| fs::read_to_string(folder.join(name));
    let mut found = Vec::new();
    for task in tasks {
        let mine = |name: &&String| name.split('.').next() == Some(task.name.as_str());
        let (right, other) = (format!("{}.bt", task.name), format!("{}.other.bt", task.name));
        if !names.contains(&right) {
            continue;
        }
        let wrong = names.iter().filter(mine).filter(|name| **name != right && **name != other);
        let wrong = wrong.map(read).collect::<Result<_, _>>()?;
        found.push(Recorded { right: read(&right)?, other: read(&other)?, wrong, task });
    }
    Ok(found)
}
