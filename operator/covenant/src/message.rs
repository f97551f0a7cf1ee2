//! Requests, replies and events. Field names are those of the Synaptic Bridge's schemas.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Decision, OutcomeDefinition, Wire};

/// Header that carries the id of a request. The same id with the same payload is answered with the stored reply.
pub const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";
/// Header that names the sender; message ids are scoped by it. Absent means the anonymous sender.
pub const SENDER_HEADER: &str = "Batos-Sender";

/// A request to one object. The subject names object and verb; `command` repeats the verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Sends the object a message and answers what its method answers.
    Send(SendCommand),
    /// Answers slots, parents, methods and elements of the object; a large one by pages.
    GetFullState(GetFullStateCommand),
    /// Sets a data slot.
    UpdateProperty { property_name: String, property_value: Wire },
    /// Creates or replaces a method (`adm` only). `method_code` is a slot as in an object literal: `deposit: n = ( … )`.
    CreateMethod { method_name: String, method_code: String },
    /// Makes slots that do what is asked for in words (`adm` only). `made` of the reply names them.
    Ask(AskCommand),
    /// Runs statements with self = the object, and answers the last one's value (`adm` only).
    Eval { source: String },
    /// Answers the names of the universe's objects, a page at a time; the subject's object may be `_`.
    List(ListCommand),
    /// Answers what the universe is, without looking at its objects; the subject's object may be `_`.
    Info,
    /// Answers what changed in the object and when, the latest first.
    History(HistoryCommand),
    /// Gives a slot the content that it had before its last change (`adm` only).
    Undo { slot: String },
    /// Answers a page of the universe's image, of one moment (`adm` only); the subject's object may be `_`.
    Export(ExportCommand),
    /// Makes the object what a Prototype resource says (`adm` only). Answers `object`, `rev`, and `drift`: names of
    /// methods and constants that the universe changed itself and that are kept.
    Apply(ApplyCommand),
    /// Ends the object of a Prototype resource that goes (`adm` only), refused while others refer to it. Answers `object`
    /// and `removed`: false if it was not that resource's object.
    Remove(RemoveCommand),
    /// Answers the changes that wait for a person, and what became of others; the subject's object may be `_`.
    Proposals(ListCommand),
    /// Decides about a proposal (`adm` only); the subject's object may be `_`.
    Approve(Decision),
    /// Answers the laws in force; the subject's object may be `_`.
    Laws {},
    /// Answers where a slot's content came from.
    Why { slot: String },
    /// Answers the becomings, open ones and those that ended (`adm` only); the subject's object may be `_`.
    Becomings(ListCommand),
    /// Ends an open becoming (`adm` only), whose id is the subject's object.
    Cancel {
        #[serde(default)]
        reason: String,
    },
    /// Judges the answers of a becoming again, against the graph as it was (`adm` only). The subject's object is the
    /// becoming's id, or with a `selector` the object that lacked it.
    Replay {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        selector: Option<String>,
    },
}

/// `send`: selector and arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SendCommand {
    pub selector: String,
    #[serde(default)]
    pub arguments: Vec<Wire>,
}

/// `ask`: what the object shall be able to do, in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AskCommand {
    pub text: String,
    /// What is made must do what they say. Without any a person decides.
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// `get_full_state`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GetFullStateCommand {
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether to tell when slots changed last, as far as the recent history says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revs: bool,
}

/// `list`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListCommand {
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// `history`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryCommand {
    /// Only changes of this slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// `next` of the page before: only revisions before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

/// `export`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExportCommand {
    /// `snapshot` of the page before; absent begins at the present moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// `apply`: a Prototype's definition, with the fence that keeps older ones out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyCommand {
    pub definition: PrototypeDefinition,
    /// The resource's uid; empty in embedded mode.
    #[serde(default)]
    pub uid: String,
    /// The resource's generation; older generations of the same uid are refused.
    #[serde(default)]
    pub generation: i64,
    /// The leader's term; older terms are refused.
    #[serde(default)]
    pub term: i64,
    /// Gives methods, intents and constants that the universe changed itself back what the definition says. Assignable
    /// data is there to change, and stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enforce: bool,
}

/// `remove`: the resource whose object ends, with the fence of `apply`. What it says holds for good: an apply of the same
/// resource that comes later is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveCommand {
    pub uid: String,
    pub generation: i64,
    pub term: i64,
}

/// What a Prototype resource makes of an object: its parents, slots and examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PrototypeDefinition {
    /// Names of other prototypes that this one delegates to, after its own traits.
    #[serde(default)]
    pub parents: Vec<String>,
    #[serde(default)]
    pub slots: Vec<SlotDefinition>,
    /// Behaviour by example: what the Crucible runs against a drafted method.
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// One slot: exactly one of `value` (data), `method` (source) and `intent` (a description) is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SlotDefinition {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Wire>,
    /// A method's source: header and body as in an object literal, `deposit: n = ( … )`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A method to be made when it is first sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<IntentDefinition>,
    /// A data slot that cannot be assigned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub constant: bool,
}

/// Behaviour in people's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IntentDefinition {
    pub text: String,
    /// Names of the arguments, one for each that the selector takes; `a`, `b` … when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// What the method is judged by.
    #[serde(default)]
    pub examples: Vec<IntentExample>,
    /// What holds wherever the method is tried, beside the examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractDefinition>,
    /// No method is made: a model answers the message each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeDefinition>,
}

/// Expressions of the language that are true or false of a message; the arguments have the intent's names there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContractDefinition {
    /// Of the receiver and the arguments before the message. Where it is true the message must not fail, where it is
    /// false the method may do as it likes. When absent, messages that fail are not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// Afterwards: `answer` is what was answered, `before` a copy of the receiver as it was.
    pub ensures: String,
}

/// With these slots, the intent sent with these arguments is answered so and leaves these slots.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IntentExample {
    #[serde(default)]
    pub given: std::collections::BTreeMap<String, Wire>,
    #[serde(default)]
    pub arguments: Vec<Wire>,
    /// What it answers; not checked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Wire>,
    #[serde(default)]
    pub leaves: std::collections::BTreeMap<String, Wire>,
    /// Whether minds are not shown it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

impl IntentExample {
    /// As an example of the message `selector`.
    pub fn of(self, selector: &str) -> Example {
        let Self { given, arguments, answers, leaves, hidden } = self;
        Example { given, send: SendCommand { selector: selector.to_owned(), arguments }, answers, leaves, hidden }
    }
}

/// An example of behaviour: with these slots, this message is answered so and leaves these slots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Example {
    /// Slots of the receiver before the message.
    #[serde(default)]
    pub given: std::collections::BTreeMap<String, Wire>,
    pub send: SendCommand,
    /// What it answers; not checked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Wire>,
    /// Slots of the receiver afterwards.
    #[serde(default)]
    pub leaves: std::collections::BTreeMap<String, Wire>,
    /// Whether minds are not shown it: what they make is judged by it all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// The reply to every request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Reply {
    Ok(OkReply),
    Error { error: ErrorReply },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OkReply {
    /// What the method answered, or the state that was asked for.
    pub value: Wire,
    /// The receiver's revision after the turn.
    pub rev: u64,
    /// Present when a method had to be made to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// Present when the turn showed something on the Transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<Transcript>,
}

impl OkReply {
    /// An answer and nothing beside it.
    pub fn new(value: Wire, rev: u64) -> Self {
        Self { value, rev, made: None, transcript: None }
    }
}

/// What a turn showed on the Transcript.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transcript {
    pub text: String,
    /// Bytes that did not fit, because a turn shows 16 KiB at most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Most that a turn can show, in bytes.
pub const MAX_TRANSCRIPT: usize = 16 << 10;

impl Transcript {
    /// Adds text. After the first that does not fit nothing more is added: what is there is what was shown first.
    pub fn show(&mut self, text: &str) {
        match self.left_out == 0 && self.text.len() + text.len() <= MAX_TRANSCRIPT {
            true => self.text.push_str(text),
            false => self.left_out += text.len() as u64,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.left_out == 0
    }
}

/// The provenance of a method that was made for this message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Made {
    pub selector: String,
    /// All slots that came with it, when the Architect asked in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brings: Vec<String>,
    /// Id of the becoming that made it.
    pub becoming: String,
    /// Object that holds the method.
    pub holder: String,
    /// The mind that drafted it; a recorded one says so.
    pub mind: String,
    /// Model calls that this becoming needed so far.
    pub model_calls: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{kind:?}: {message}")]
pub struct ErrorReply {
    pub kind: ErrorKind,
    /// What is wrong, with the offending value and what to do.
    pub message: String,
    /// The slot of a definition that the message is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Activations from the innermost outwards: receiver, selector, line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
    /// Present when the turn that failed had shown something on the Transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<Box<Transcript>>,
    /// The becoming that makes what was missing, or that tried to: its events tell how it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub becoming: Option<String>,
}

/// What went wrong, for programs. New kinds may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is no valid request: bad encoding, unknown verb, wrong fields.
    BadRequest,
    /// The subject class does not allow the verb.
    Forbidden,
    /// No object of this name or id.
    NoSuchObject,
    /// Nobody understands the message and nothing could be made of it.
    NotUnderstood,
    /// Two different slots were found.
    Ambiguous,
    /// The method failed.
    MethodFailed,
    /// Fuel, memory or depth ran out.
    LimitExceeded,
    /// The source does not compile.
    SyntaxError,
    /// A message id was used again with another payload.
    IdReused,
    /// The write lost against others too often.
    Conflict,
    /// Others refer to the object that was to be removed.
    InUse,
    /// An older uid, generation or term than what the object has seen; a message id so old that nobody knows whether it was
    /// carried out.
    Stale,
    /// The store or the mind cannot be reached, or the outcome is not known yet: ask again with the same id.
    Unavailable,
    /// A draft failed the Crucible, or a person denied it.
    Refused,
    /// The method that was made waits for a person.
    NeedsApproval,
    /// What would deal with it is not there yet; that it was wanted is recorded.
    NotAvailable,
    /// A defect of ours.
    Internal,
}

impl ErrorReply {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), slot: None, stack: Vec::new(), transcript: None, becoming: None }
    }
}

/// Published on `….evt.<object>.failed` when a message that an object sent to run on its own (`async`, a timer) failed:
/// nobody waits for its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PostFailedEvent {
    /// The receiver's id.
    pub object: String,
    /// Id of the object whose turn sent it.
    pub sender: String,
    pub selector: String,
    pub error: ErrorReply,
}

/// Published on `….evt.<object>.state` after each commit that changed the object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UvmStateUpdateEvent {
    pub object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All data slots, without private ones (names that begin with `_`); of a large object those that changed and fit.
    pub state: serde_json::Map<String, Wire>,
    /// Of a collection that is not large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elements: Option<Vec<Wire>>,
    /// The object is too large to be told whole: `get_full_state` has all of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    pub rev: u64,
    /// 0 when the object is new. A gap between `rev` and the last event seen means one was missed.
    pub prev_rev: u64,
    /// Names of the slots that changed.
    pub changed: Vec<String>,
}

/// Published on `….evt.genesis.image` when a newer batos has merged its image into the universe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageEvent {
    /// Version of the batos that did.
    pub batos: String,
    /// Names of new objects.
    pub added: Vec<String>,
    pub changed: Vec<ImageChange>,
    /// Names of objects that are no more.
    pub removed: Vec<String>,
    /// What is shipped otherwise, or no more, and lives on because the universe changed or uses it. The slot `name` stands
    /// for a name that an object of the universe has.
    pub kept: Vec<ImageChange>,
}

/// An object of the image, and slots of it; no slots: all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageChange {
    pub object: String,
    pub slots: Vec<String>,
}

impl ImageEvent {
    /// Whether anything happened.
    pub fn is_news(&self) -> bool {
        !(self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty() && self.kept.is_empty())
    }
}

/// Published on `….evt.<object>.transcript` after the commit of a turn that showed something on the Transcript. The
/// object is the receiver of the turn's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TranscriptEvent {
    pub object: String,
    #[serde(flatten)]
    pub transcript: Transcript,
}

/// Answer to `get_full_state`, as the `value` of an ok reply: all, or a page. Pages of one object are of one revision and
/// follow each other by `next`; put together they are the whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FullState {
    pub object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub rev: u64,
    pub state: serde_json::Map<String, Wire>,
    /// Parent slots: name to object id.
    pub parents: std::collections::BTreeMap<String, String>,
    /// Own methods and those of the traits parent: selector to source.
    pub methods: std::collections::BTreeMap<String, String>,
    /// Intents: selector to text. Those that have been made are among the methods too.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub intents: std::collections::BTreeMap<String, String>,
    /// Elements of a collection, of a dictionary `[key, value]`; all or the first ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elements: Option<Vec<Wire>>,
    /// How many elements the collection has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Revisions that slots got their content in, where they were asked for and the recent history has them.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub revs: std::collections::BTreeMap<String, u64>,
    /// Present when there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl FullState {
    /// Adds the next page.
    pub fn append(&mut self, page: Self) {
        self.state.extend(page.state);
        self.parents.extend(page.parents);
        self.methods.extend(page.methods);
        self.intents.extend(page.intents);
        self.revs.extend(page.revs);
        if let Some(elements) = page.elements {
            self.elements.get_or_insert_default().extend(elements);
        }
        self.next = page.next;
    }
}

/// Answer to `info`. That there is one says that the worker reaches the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UniverseInfo {
    /// Version of the batos that the worker is.
    pub batos: String,
    /// Digest of the image that its turns rest on.
    pub image: String,
    /// Absent until they were counted for the first time, a minute after the universe was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectCount>,
}

/// How many objects there were when they were looked through last: at least every six hours, and every ten minutes where
/// that is quickly done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectCount {
    /// Those of the image too.
    pub count: u64,
    /// In seconds since 1970, by the worker's clock.
    pub at: u64,
}

/// Answer to `list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Listing {
    pub objects: Vec<Listed>,
    /// Present when there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    pub name: String,
    pub object: String,
}

/// Answer to `history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage {
    pub changes: Vec<SlotChange>,
    /// Present on the page where it applies: data of revisions before this one is no longer kept, methods are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_from: Option<u64>,
    /// Present when there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What one revision changed in one slot. Data is a value, a method its source; absent where there was no such slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SlotChange {
    /// The revision that made the change.
    pub rev: u64,
    /// The message that made it: verb, sender and id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, in seconds since 1970 by the worker's clock; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    pub slot: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Wire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub became: Option<Wire>,
}

/// Answer to `export`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExportPage {
    pub snapshot: String,
    /// Rows of the image: MessagePack `[[key, rev, value], …]` in Base64.
    pub rows: String,
    /// Present when there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
