//! The ingress: from bytes on the bus to turns, becomings and replies.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use batos_bus::{Handler, Refusal, Request};
use batos_covenant::{
    AccessClass, AskCommand, Command, Encoding, ErrorKind, ErrorReply, ExportCommand, ExportPage, ListCommand,
    MAX_PAYLOAD, Made, OkReply, Reply, SendCommand, Subject, Wire, decode, encode,
};
use batos_graph::{ObjectId, Snapshot};
use batos_mind::{ApprovalError, BecomingError, Directive, Mind, MindError, Outcome as Ended, Said};
use batos_uvm::{
    universe::{Authority, Delivery, Message, Outcome, Unanswered, Universe, UniverseError, Waiting, Work},
    vm::Question,
};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::metrics::Metrics;

/// How long a sender waits for a becoming before it is told to ask again.
const BECOMING_WAIT: Duration = Duration::from_secs(8);

/// Questions that one message may ask models.
const MAX_OUTCOMES: usize = 8;

/// From bytes to a turn and back.
pub struct Ingress {
    pub universe: Universe,
    pub mind: Mind,
    pub metrics: Arc<Metrics>,
}

impl Handler for Ingress {
    async fn handle(&self, request: Request) -> Vec<u8> {
        let begun = Instant::now();
        let encoding = Encoding::of(&request.payload);
        let reply = match self.answer(&request, encoding).await {
            Ok(reply) => reply,
            Err(error) => {
                if error.kind == ErrorKind::Internal {
                    tracing::error!(subject = request.subject, %error, "defect");
                }
                encode(&Reply::Error { error }, encoding).unwrap_or_default()
            }
        };
        self.metrics.turn(outcome(&reply), begun.elapsed());
        reply
    }

    /// Messages that run on objects; the rest is rare, or looks at more than one.
    async fn shard(&self, request: &Request) -> Option<u8> {
        let subject = Subject::parse(&request.subject).ok()?;
        match subject.verb.as_str() {
            "send" | "update_property" => self.universe.resolve(&subject.object).await.ok().map(|id| id.shard()),
            _ => None,
        }
    }

    fn refuse(&self, payload: &[u8], refusal: Refusal) -> Vec<u8> {
        let error = match refusal {
            Refusal::Busy { waiting } => {
                let text = format!("{waiting} requests wait already; send it again later, with the same id");
                ErrorReply::new(ErrorKind::Unavailable, text)
            }
            Refusal::TooLarge { bytes, largest } => {
                let text = format!("the reply has {bytes} bytes; the NATS server takes {largest} (max_payload)");
                ErrorReply::new(ErrorKind::LimitExceeded, text)
            }
        };
        encode(&Reply::Error { error }, Encoding::of(payload)).unwrap_or_default()
    }
}

/// How a request ended: `None` is well.
fn outcome(reply: &[u8]) -> Option<ErrorKind> {
    // The status comes first, so that only errors are read.
    let start = reply.get(..24).unwrap_or(reply);
    if !start.windows(5).any(|word| word == b"error") {
        return None;
    }
    match decode(reply) {
        Ok((Reply::Error { error }, _)) => Some(error.kind),
        Ok((Reply::Ok(_), _)) => None,
        Err(_) => Some(ErrorKind::Internal),
    }
}

impl Ingress {
    async fn answer(&self, request: &Request, encoding: Encoding) -> Result<Vec<u8>, ErrorReply> {
        let bad = |message: String| ErrorReply::new(ErrorKind::BadRequest, message);
        let subject = Subject::parse(&request.subject).map_err(|e| bad(e.to_string()))?;
        let (command, _): (Command, _) = decode(&request.payload).map_err(|e| bad(e.to_string()))?;
        let (verb, class) = verb_of(&command);
        if verb != subject.verb {
            return Err(bad(format!("the subject's verb is {:?}, the payload's command {verb:?}", subject.verb)));
        }
        if class == AccessClass::Adm && subject.class == AccessClass::Cmd {
            let message = format!("{verb:?} needs a subject of class adm, not cmd");
            return Err(ErrorReply::new(ErrorKind::Forbidden, message));
        }
        if request.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 256) {
            return Err(bad("a message id has 1 to 256 bytes".to_owned()));
        }
        let fail = |e: UniverseError| e.to_reply();
        let work = match command {
            Command::Apply(apply) => Work::Apply { name: subject.object.clone(), apply },
            Command::Remove(remove) => Work::Remove { name: subject.object.clone(), remove },
            Command::Send(send) => Work::Send { send, made: None },
            Command::Eval { source } => Work::Eval { source, made: None },
            Command::UpdateProperty { property_name, property_value } => Work::Send {
                send: SendCommand { selector: format!("{property_name}:"), arguments: vec![property_value] },
                made: None,
            },
            Command::CreateMethod { method_name, method_code } => {
                Work::CreateMethod { name: method_name, source: method_code }
            }
            Command::Undo { slot } => Work::Undo { slot },
            Command::Approve(decision) => {
                let settled = self.mind.decide(decision).await.map_err(|error| approval_error(&error))?;
                let reply = Reply::Ok(OkReply::new(to_value(&settled)?, 0));
                return encode(&reply, encoding).map_err(|e| ErrorReply::new(ErrorKind::Internal, e.to_string()));
            }
            Command::Ask(AskCommand { text, examples }) => {
                let object = self.universe.resolve(&subject.object).await.map_err(fail)?;
                let sender = request.sender.clone().unwrap_or_default();
                let (mind, directive) = (self.mind.clone(), Directive { text, examples });
                let becoming = tokio::spawn(async move { mind.ask(object, directive, &sender).await });
                let made = self.ended("what was asked for", "it was asked for in words", becoming).await?;
                let value = to_value(&made.brings)?;
                let reply = Reply::Ok(OkReply { made: Some(made), ..OkReply::new(value, 0) });
                return encode(&reply, encoding).map_err(|e| ErrorReply::new(ErrorKind::Internal, e.to_string()));
            }
            Command::Cancel { reason } => {
                let bad = |_| bad(format!("{:?} is no id of a becoming", subject.object));
                let becoming: ObjectId = subject.object.parse().map_err(bad)?;
                let ended = self.mind.cancel(becoming, &reason).await.map_err(|error| becoming_error(&error))?;
                let reply = Reply::Ok(OkReply::new(to_value(&ended)?, 0));
                return encode(&reply, encoding).map_err(|e| ErrorReply::new(ErrorKind::Internal, e.to_string()));
            }
            Command::GetFullState(_)
            | Command::Info
            | Command::List(_)
            | Command::History(_)
            | Command::Export(_)
            | Command::Proposals(_)
            | Command::Becomings(_)
            | Command::Laws {}
            | Command::Why { .. }
            | Command::Replay { .. } => {
                let reply = Reply::Ok(self.read(command, &subject.object).await?);
                let bytes =
                    encode(&reply, encoding).map_err(|e| ErrorReply::new(ErrorKind::Internal, e.to_string()))?;
                return match bytes.len() <= MAX_PAYLOAD {
                    true => Ok(bytes),
                    false => Err(ErrorReply::new(
                        ErrorKind::LimitExceeded,
                        format!("the page has {} bytes as {encoding:?}; ask for it in MessagePack", bytes.len()),
                    )),
                };
            }
        };
        let object = match &work {
            // The object need not be there yet; its name decides its id.
            Work::Apply { name, .. } | Work::Remove { name, .. } => {
                let known = self.universe.lookup_name(name).await.map_err(fail)?;
                known.unwrap_or_else(|| ObjectId::of_name(name))
            }
            _ => self.universe.resolve(&subject.object).await.map_err(fail)?,
        };
        self.deliver(Message {
            object,
            authority: match (&work, subject.class) {
                (Work::Apply { .. } | Work::Remove { .. }, _) => Authority::Operator,
                (_, AccessClass::Adm) => Authority::Architect,
                (_, AccessClass::Cmd) => Authority::Sender,
            },
            sender: request.sender.clone().unwrap_or_default(),
            id: request.id.clone(),
            digest: *blake3::hash(&request.payload).as_bytes(),
            encoding,
            work,
        })
        .await
    }

    /// Answers what changes nothing.
    async fn read(&self, command: Command, object: &str) -> Result<OkReply, ErrorReply> {
        let fail = |e: UniverseError| e.to_reply();
        let resolve = || async { self.universe.resolve(object).await.map_err(fail) };
        let value = match command {
            Command::List(list) => {
                let after = list.after.map(|mark| bytes_of(&mark)).transpose()?;
                to_value(&self.universe.list(after.as_deref()).await.map_err(fail)?)
            }
            Command::Info => to_value(&self.universe.info().await.map_err(fail)?),
            Command::History(wanted) => {
                let page = self.universe.history(resolve().await?, wanted.slot.as_deref(), wanted.before).await;
                to_value(&page.map_err(fail)?)
            }
            Command::Proposals(list) => to_value(&self.mind.proposals(after(list)?.as_ref()).await.map_err(fail)?),
            Command::Becomings(list) => to_value(&self.mind.becomings(after(list)?.as_ref()).await.map_err(fail)?),
            Command::Laws {} => to_value(&self.mind.laws_in_force().await.map_err(fail)?),
            Command::Why { slot } => to_value(&self.mind.why(resolve().await?, &slot).await.map_err(fail)?),
            Command::Replay { selector } => {
                let bad = |_| ErrorReply::new(ErrorKind::BadRequest, format!("{object:?} is no id of a becoming"));
                let becoming = match selector {
                    Some(selector) => self.mind.becoming_of(resolve().await?, &selector).await.map_err(fail)?,
                    None => object.parse().map_err(bad)?,
                };
                to_value(&self.mind.replay(becoming).await.map_err(fail)?)
            }
            Command::Export(wanted) => to_value(&self.export(wanted).await?),
            Command::GetFullState(wanted) => {
                let id = resolve().await?;
                return match self.universe.full_state(id, &wanted).await {
                    Err(UniverseError::NoSuchObject(name)) => {
                        let becoming = self.mind.becoming_state(id).await.map_err(fail)?;
                        becoming.ok_or_else(|| fail(UniverseError::NoSuchObject(name)))
                    }
                    other => other.map_err(fail),
                };
            }
            _ => return Err(ErrorReply::new(ErrorKind::Internal, "not a command that only reads")),
        };
        Ok(OkReply::new(value?, 0))
    }

    async fn export(&self, wanted: ExportCommand) -> Result<ExportPage, ErrorReply> {
        let bad = |what: String| ErrorReply::new(ErrorKind::BadRequest, what);
        let at = match &wanted.snapshot {
            Some(mark) => Some(Snapshot(mark.parse().map_err(|_| bad(format!("{mark:?} is no snapshot")))?)),
            None => None,
        };
        let after = wanted.after.map(|mark| bytes_of(&mark)).transpose()?;
        let (at, rows, next) = self.universe.export(at, after.as_deref()).await.map_err(|e| e.to_reply())?;
        let rows =
            encode(&rows, Encoding::MessagePack).map_err(|e| ErrorReply::new(ErrorKind::Internal, e.to_string()))?;
        let next = next.map(|key| hex(&key));
        Ok(ExportPage { snapshot: at.0.to_string(), rows: BASE64_STANDARD.encode(rows), next })
    }

    /// Carries out a message that an object sent.
    pub async fn carry_out(&self, waiting: &Waiting) -> Result<(), ErrorReply> {
        let message = Message {
            object: waiting.envelope.post.receiver,
            // Whoever sent the first message of the chain, its objects act for themselves.
            authority: Authority::Sender,
            sender: String::new(),
            id: None,
            digest: [0; 32],
            encoding: Encoding::MessagePack,
            work: Work::Post { waiting: Box::new(waiting.clone()) },
        };
        self.deliver(message).await.map(|_| ())
    }

    /// Delivers; when nobody understands, makes the method, when a model has to say something, asks it, and delivers again.
    async fn deliver(&self, mut message: Message) -> Result<Vec<u8>, ErrorReply> {
        let (mut outcomes, mut has_made) = (Vec::new(), false);
        loop {
            let missing = match self.universe.deliver_with(&message, &outcomes).await {
                Ok(Delivery::Replied(reply)) => return Ok(reply),
                Ok(Delivery::NotUnderstood(missing)) => missing,
                Err(error) => return Err(error.to_reply()),
            };
            if let Some(question) = missing.question.clone() {
                if outcomes.len() == MAX_OUTCOMES {
                    let text = format!(
                        "a message may ask models {MAX_OUTCOMES} questions, {:?} is one more",
                        missing.selector
                    );
                    return Err(ErrorReply::new(ErrorKind::LimitExceeded, text));
                }
                outcomes.push(self.outcome(&message, &missing, *question).await?);
                continue;
            }
            if has_made {
                return Err(not_understood(&missing, "even after one method was made"));
            }
            let made = match self.make(&missing).await {
                Ok(made) => made,
                Err(mut error) => {
                    error.becoming =
                        self.mind.becoming_for(&missing).await.ok().flatten().map(|becoming| becoming.to_string());
                    return Err(self.with_similar(&missing, error).await);
                }
            };
            has_made = true;
            if let Work::Send { made: told, .. } | Work::Eval { made: told, .. } = &mut message.work {
                *told = Some(made);
            }
        }
    }

    /// Has a model say what an intent comes to.
    async fn outcome(
        &self,
        message: &Message,
        missing: &Unanswered,
        question: Question,
    ) -> Result<Outcome, ErrorReply> {
        let scope = match (&message.id, &message.work) {
            (Some(id), _) => Some([message.sender.as_bytes(), &[0], id.as_bytes(), &message.object.0].concat()),
            (None, Work::Post { waiting }) => Some([waiting.key.0.as_slice(), &waiting.rev.to_be_bytes()].concat()),
            (None, _) => None,
        };
        let (mind, asked) = (self.mind.clone(), missing.clone());
        // Its own task: what a model says is kept when the sender has given up, for when it asks again.
        let asking = tokio::spawn(async move { mind.outcome(&asked, &question, scope.as_deref()).await });
        let selector = &missing.selector;
        match tokio::time::timeout(BECOMING_WAIT, asking).await {
            Err(_) => {
                let text = format!("a model is thinking about {selector:?}; ask again with the same id");
                Err(ErrorReply::new(ErrorKind::Unavailable, text))
            }
            Ok(Ok(Ok(Said::Answer(outcome)))) => Ok(outcome),
            Ok(Ok(Ok(Said::Refused(reason)))) => Err(ErrorReply::new(
                ErrorKind::NotAvailable,
                format!("a model was asked about {selector:?}, and no answer has the declared shape: {reason}"),
            )),
            Ok(Ok(Err(BecomingError::Mind(error)))) if error.is_passing() => Err(ErrorReply::new(
                ErrorKind::Unavailable,
                format!("a model cannot be asked about {selector:?} now, ask again with the same id: {error}"),
            )),
            Ok(Ok(Err(BecomingError::Mind(error @ MindError::Spent { .. })))) => {
                Err(ErrorReply::new(ErrorKind::LimitExceeded, format!("nobody understands {selector:?}, and {error}")))
            }
            Ok(Ok(Err(BecomingError::Mind(error)))) => Err(not_understood(missing, &error.to_string())),
            Ok(Ok(Err(BecomingError::Universe(error)))) => Err(error.to_reply()),
            Ok(Ok(Err(error @ BecomingError::Proposed(_)))) => {
                Err(ErrorReply::new(ErrorKind::NeedsApproval, error.to_string()))
            }
            Ok(Err(error)) => Err(ErrorReply::new(ErrorKind::Internal, format!("outcome: {error}"))),
        }
    }

    /// Whoever mistyped a selector hears what the object understands instead.
    async fn with_similar(&self, missing: &Unanswered, mut error: ErrorReply) -> ErrorReply {
        if matches!(error.kind, ErrorKind::NotUnderstood | ErrorKind::Refused)
            && let Ok(similar) = self.universe.similar(missing.receiver, &missing.selector).await
            && !similar.is_empty()
        {
            error.message += &format!("; it understands {}", similar.join(", "));
        }
        error
    }

    async fn make(&self, missing: &Unanswered) -> Result<Made, ErrorReply> {
        let (mind, asked) = (self.mind.clone(), missing.clone());
        // Its own task: a becoming goes on when its sender has given up.
        let becoming = tokio::spawn(async move { mind.make(&asked).await });
        let selector = &missing.selector;
        let (thing, lacks) = (format!("a method for {selector:?}"), format!("nobody understands {selector:?}"));
        self.ended(&thing, &lacks, becoming).await
    }

    /// What became of a becoming, as far as its sender waits. `lacks`: why it began.
    async fn ended(
        &self,
        thing: &str,
        lacks: &str,
        becoming: JoinHandle<Result<Ended, BecomingError>>,
    ) -> Result<Made, ErrorReply> {
        let Ok(ended) = tokio::time::timeout(BECOMING_WAIT, becoming).await else {
            let message = format!("{thing} is being made, batos becomings tells how far; ask again with the same id");
            return Err(ErrorReply::new(ErrorKind::Unavailable, message));
        };
        match ended {
            Ok(Ok(Ended::Made(made))) => Ok(made),
            Ok(Ok(Ended::Refused(reason))) => {
                Err(ErrorReply::new(ErrorKind::Refused, format!("{lacks}, and the draft was refused: {reason}")))
            }
            Ok(Ok(Ended::NotAvailable(reason))) => {
                Err(ErrorReply::new(ErrorKind::NotAvailable, format!("{lacks}: {reason}")))
            }
            Ok(Ok(Ended::Proposed(proposal))) => Err(ErrorReply::new(
                ErrorKind::NeedsApproval,
                format!(
                    "{thing} was made and waits for a person, because {}: batos approve {}",
                    proposal.risks.join(", "),
                    proposal.id
                ),
            )),
            Ok(Err(BecomingError::Mind(error))) if error.is_passing() => Err(ErrorReply::new(
                ErrorKind::Unavailable,
                format!("{thing} cannot be made now, ask again with the same id: {error}"),
            )),
            Ok(Err(BecomingError::Mind(error @ MindError::Halted(_)))) => {
                Err(ErrorReply::new(ErrorKind::NeedsApproval, format!("{lacks}: {error}")))
            }
            Ok(Err(BecomingError::Mind(error @ MindError::Spent { .. }))) => {
                Err(ErrorReply::new(ErrorKind::LimitExceeded, format!("{lacks}, and {error}")))
            }
            Ok(Err(BecomingError::Mind(error))) => {
                Err(ErrorReply::new(ErrorKind::NotUnderstood, format!("{lacks}: {error}")))
            }
            Ok(Err(BecomingError::Universe(error))) => Err(error.to_reply()),
            Ok(Err(error @ BecomingError::Proposed(_))) => {
                Err(ErrorReply::new(ErrorKind::NeedsApproval, error.to_string()))
            }
            Err(error) => Err(ErrorReply::new(ErrorKind::Internal, format!("becoming: {error}"))),
        }
    }
}

fn to_value(answer: &impl Serialize) -> Result<Wire, ErrorReply> {
    serde_json::to_value(answer).map_err(|e| ErrorReply::new(ErrorKind::Internal, e.to_string()))
}

/// The mark of a page that goes by ids.
fn after(list: ListCommand) -> Result<Option<ObjectId>, ErrorReply> {
    let bad = |mark: &String| ErrorReply::new(ErrorKind::BadRequest, format!("{mark:?} is no mark of a page"));
    list.after.map(|mark| mark.parse().map_err(|_| bad(&mark))).transpose()
}

/// Page marks are bytes in hexadecimal.
fn bytes_of(mark: &str) -> Result<Vec<u8>, ErrorReply> {
    let bad = || ErrorReply::new(ErrorKind::BadRequest, format!("{mark:?} is no mark of a page"));
    let digits = mark.as_bytes().chunks(2);
    digits
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(bad))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn not_understood(missing: &Unanswered, why: &str) -> ErrorReply {
    let message = format!("object {} does not understand {:?}: {why}", missing.receiver, missing.selector);
    ErrorReply::new(ErrorKind::NotUnderstood, message)
}

fn becoming_error(error: &BecomingError) -> ErrorReply {
    match error {
        BecomingError::Universe(error) => error.to_reply(),
        BecomingError::Proposed(_) => ErrorReply::new(ErrorKind::NeedsApproval, error.to_string()),
        BecomingError::Mind(_) => ErrorReply::new(ErrorKind::Unavailable, error.to_string()),
    }
}

fn approval_error(error: &ApprovalError) -> ErrorReply {
    let kind = match error {
        ApprovalError::NoSuchProposal(_) => ErrorKind::NoSuchObject,
        ApprovalError::Settled(_) | ApprovalError::OtherSource { .. } | ApprovalError::Expired => ErrorKind::Stale,
        ApprovalError::UnknownKey(_) | ApprovalError::BadSignature => ErrorKind::Forbidden,
        ApprovalError::Becoming(error) => return becoming_error(error),
    };
    ErrorReply::new(kind, error.to_string())
}

/// The verb that names a command in a subject, and the least class that may use it.
fn verb_of(command: &Command) -> (&'static str, AccessClass) {
    match command {
        Command::Send(_) => ("send", AccessClass::Cmd),
        Command::GetFullState(_) => ("get_full_state", AccessClass::Cmd),
        Command::UpdateProperty { .. } => ("update_property", AccessClass::Cmd),
        Command::CreateMethod { .. } => ("create_method", AccessClass::Adm),
        Command::Ask(_) => ("ask", AccessClass::Adm),
        Command::Eval { .. } => ("eval", AccessClass::Adm),
        Command::Info => ("info", AccessClass::Cmd),
        Command::List(_) => ("list", AccessClass::Cmd),
        Command::History(_) => ("history", AccessClass::Cmd),
        Command::Undo { .. } => ("undo", AccessClass::Adm),
        Command::Export(_) => ("export", AccessClass::Adm),
        Command::Apply(_) => ("apply", AccessClass::Adm),
        Command::Remove(_) => ("remove", AccessClass::Adm),
        Command::Proposals(_) => ("proposals", AccessClass::Adm),
        Command::Approve(_) => ("approve", AccessClass::Adm),
        Command::Laws {} => ("laws", AccessClass::Cmd),
        Command::Why { .. } => ("why", AccessClass::Adm),
        Command::Replay { .. } => ("replay", AccessClass::Adm),
        Command::Becomings(_) => ("becomings", AccessClass::Adm),
        Command::Cancel { .. } => ("cancel", AccessClass::Adm),
    }
}
