//! A universe in memory that lets every object be faulted in once.
// Each test uses a part of this.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod buckets;
pub mod histories;
pub mod house;
pub mod script;
pub mod universe;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use batos_graph::{ObjectId, Record, Rev};
use batos_uvm::{
    image,
    vm::{Effects, Exit, Limits, Needs, Turn, VmError},
};

pub struct World {
    pub records: HashMap<ObjectId, (Rev, Arc<Record>)>,
}

impl World {
    pub fn new() -> Self {
        static IMAGE: OnceLock<HashMap<ObjectId, (Rev, Arc<Record>)>> = OnceLock::new();
        let image = || image::genesis().unwrap().into_iter().map(|(id, record)| (id, (1, Arc::new(record)))).collect();
        Self { records: IMAGE.get_or_init(image).clone() }
    }

    pub fn name(&self, name: &str) -> Option<ObjectId> {
        self.records.iter().find(|(_, (_, record))| record.name.as_deref() == Some(name)).map(|(id, _)| *id)
    }

    /// Runs to an exit that is neither a pause nor a fault.
    pub fn run(&self, turn: &mut Turn) -> Exit {
        loop {
            match turn.run(u64::MAX) {
                Exit::Paused => {}
                Exit::Fault(Needs { objects, names, .. }) => {
                    objects.into_iter().for_each(|id| turn.supply(id, self.records.get(&id).cloned()));
                    names.iter().for_each(|name| turn.supply_name(name, self.name(name)));
                }
                exit => return exit,
            }
        }
    }

    pub fn eval_within(&self, source: &str, limits: Limits) -> Result<Effects, VmError> {
        let mut turn = Turn::eval(image::GENESIS, source, limits, [7; 32])?;
        match self.run(&mut turn) {
            Exit::Done => turn.effects(),
            Exit::Failed(error) => Err(error),
            Exit::NotUnderstood(missing) => {
                Err(VmError::new(batos_covenant::ErrorKind::NotUnderstood, missing.selector))
            }
            exit => panic!("{exit:?}"),
        }
    }

    pub fn eval(&self, source: &str) -> Result<Effects, VmError> {
        self.eval_within(source, Limits::default())
    }

    /// Asserts what `source` answers, as JSON.
    #[track_caller]
    pub fn answers(&self, source: &str, wanted: &str) {
        match self.eval(source) {
            Ok(effects) => assert_eq!(effects.answer.to_string(), wanted, "{source}"),
            Err(error) => panic!("{source}: {error} {:?}", error.stack),
        }
    }
}
