//! A universe on a file of its own, and messages to it.

use std::sync::Arc;

use batos_covenant::{ApplyCommand, Encoding, PrototypeDefinition, Reply, SendCommand, SlotDefinition, Wire, decode};
use batos_graph::{ObjectId, RedbStore, Store};
use batos_uvm::universe::{Authority, Delivery, Message, Unanswered, Universe, Work};

pub fn store() -> (tempfile::TempDir, Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("universe.redb")).unwrap();
    (folder, Arc::new(store))
}

pub fn message(object: ObjectId, sender: &str, work: Work) -> Message {
    Message {
        object,
        authority: Authority::Architect,
        sender: sender.to_owned(),
        id: None,
        digest: [0; 32],
        encoding: Encoding::Json,
        work,
    }
}

pub fn send(object: ObjectId, sender: &str, selector: &str, arguments: &[Wire]) -> Message {
    let send = SendCommand { selector: selector.to_owned(), arguments: arguments.to_vec() };
    message(object, sender, Work::Send { send, made: None })
}

pub fn data(name: &str, value: Wire) -> SlotDefinition {
    SlotDefinition { name: name.to_owned(), value: Some(value), method: None, intent: None, constant: false }
}

/// Applies a definition; answers the reply's value, else the error.
pub async fn apply(universe: &Universe, name: &str, slots: Vec<SlotDefinition>) -> Result<Wire, String> {
    let definition = PrototypeDefinition { slots, ..PrototypeDefinition::default() };
    let apply = ApplyCommand { definition, uid: String::new(), generation: 0, term: 0, enforce: false };
    let message = message(ObjectId::of_name(name), "", Work::Apply { name: name.to_owned(), apply });
    answer(universe, &message).await.map(|answer| answer.unwrap())
}

/// The answer, or what nobody understood.
pub async fn answer(universe: &Universe, message: &Message) -> Result<Result<Wire, Unanswered>, String> {
    match universe.deliver(message).await.map_err(|error| error.to_string())? {
        Delivery::NotUnderstood(missing) => Ok(Err(missing)),
        Delivery::Replied(bytes) => match decode::<Reply>(&bytes).unwrap().0 {
            Reply::Ok(reply) => Ok(Ok(reply.value)),
            Reply::Error { error } => Err(error.message),
        },
    }
}
