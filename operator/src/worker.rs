//! A worker: the ingress from the bus to turns, becomings and replies.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use batos_bus::{BusError, Client, Handler, Publisher, Request};
use batos_covenant::{
    AccessClass, ApplyCommand, Command, Encoding, ErrorKind, ErrorReply, Reply, SendCommand, Subject, decode, encode,
};
use batos_graph::{ObjectId, Store};
use batos_mind::{BecomingError, Mind, Outcome, Recordings};
use batos_uvm::universe::{Authority, Delivery, Message, Unanswered, Universe, Work};
use tokio::{sync::watch, task::JoinHandle};

use crate::{cli::Error, health, relay};

/// How long a sender waits for a becoming before it is told to ask again.
const BECOMING_WAIT: Duration = Duration::from_secs(8);

pub struct Settings {
    pub universe: String,
    pub store: Arc<dyn Store>,
    pub nats: String,
    pub root: String,
    pub recordings: Recordings,
    pub health: Option<SocketAddr>,
}

/// A running worker.
pub struct Worker {
    ingress: Arc<Ingress>,
    store: Arc<dyn Store>,
    /// Until it has ended.
    serving: Option<JoinHandle<Result<(), BusError>>>,
    helpers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Worker {
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let Settings { universe: name, store, nats, root, recordings, health: probe } = settings;
        let universe = Universe::open(&name, store.clone()).await?;
        let mind = Mind::new(universe.clone(), Arc::new(recordings));
        let bus = Client::connect(&nats).await?;
        let publisher = Publisher::open(&bus, &root, &name).await;
        let resumed = mind.resume().await?;
        tracing::info!(universe = name, resumed, "universe is open");

        let ingress = Arc::new(Ingress { universe: universe.clone(), mind });
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn({
            let (bus, root, ingress) = (bus.clone(), root.clone(), ingress.clone());
            async move { batos_bus::serve(&bus, &root, &name, ingress, stopped).await }
        });
        let mut helpers = vec![tokio::spawn(relay::run(universe, publisher, root))];
        if let Some(address) = probe {
            helpers.push(tokio::spawn(async move {
                let connected = move || bus.is_connected().then_some(()).ok_or("not connected to NATS");
                if let Err(error) = health::serve(address, connected).await {
                    tracing::error!(%address, %error, "no probe is served");
                }
            }));
        }
        Ok(Self { ingress, store, serving: Some(serving), helpers, stop })
    }

    /// Applies a definition as the operator would.
    pub async fn apply(&self, name: &str, apply: ApplyCommand) -> Result<Reply, Error> {
        let command = Command::Apply(apply);
        let payload = encode(&command, Encoding::Json)?;
        let subject = Subject::new("local", self.ingress.universe.name(), AccessClass::Adm, name, "apply")?;
        let request = Request { subject: subject.to_string(), sender: None, id: None, payload };
        Ok(decode(&self.ingress.handle(request).await)?.0)
    }

    /// Completes when the worker cannot serve any more, with the reason. Cancel safe.
    pub async fn ended(&mut self) -> Error {
        let Some(serving) = &mut self.serving else { return std::future::pending().await };
        let ended = serving.await;
        self.serving = None;
        format!("serving ended: {ended:?}").into()
    }

    /// Finishes what has begun and closes the store.
    pub async fn stop(self) -> Result<(), Error> {
        tracing::info!("stopping: finishing what has begun");
        let _ = self.stop.send(true);
        if let Some(serving) = self.serving {
            serving.await??;
        }
        self.helpers.iter().for_each(JoinHandle::abort);
        self.store.close().await?;
        Ok(())
    }
}

/// From bytes to a turn and back.
struct Ingress {
    universe: Universe,
    mind: Mind,
}

impl Handler for Ingress {
    async fn handle(&self, request: Request) -> Vec<u8> {
        let encoding = Encoding::of(&request.payload);
        let error = match self.answer(&request, encoding).await {
            Ok(reply) => return reply,
            Err(error) => error,
        };
        if error.kind == ErrorKind::Internal {
            tracing::error!(subject = request.subject, %error, "defect");
        }
        encode(&Reply::Error { error }, encoding).unwrap_or_default()
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
        let work = match command {
            Command::Apply(apply) => Work::Apply { name: subject.object.clone(), apply },
            Command::Send(send) => Work::Send { send, made: None },
            Command::Eval { source } => Work::Eval { source, made: None },
            Command::UpdateProperty { property_name, property_value } => Work::Send {
                send: SendCommand { selector: format!("{property_name}:"), arguments: vec![property_value] },
                made: None,
            },
            Command::CreateMethod { method_name, method_code } => {
                Work::CreateMethod { name: method_name, source: method_code }
            }
            Command::GetFullState => {
                let object = self.universe.resolve(&subject.object).await.map_err(|e| e.to_reply())?;
                let state = self.universe.full_state(object).await.map_err(|e| e.to_reply())?;
                return encode(&Reply::Ok(state), encoding)
                    .map_err(|e| ErrorReply::new(ErrorKind::Internal, e.to_string()));
            }
        };
        let object = match &work {
            // The object need not be there yet; its name decides its id.
            Work::Apply { name, .. } => {
                let known = self.universe.lookup_name(name).await.map_err(|e| e.to_reply())?;
                known.unwrap_or_else(|| ObjectId::of_name(name))
            }
            _ => self.universe.resolve(&subject.object).await.map_err(|e| e.to_reply())?,
        };
        self.deliver(Message {
            object,
            authority: match (&work, subject.class) {
                (Work::Apply { .. }, _) => Authority::Operator,
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

    /// Delivers; when nobody understands, makes the method and delivers once more.
    async fn deliver(&self, mut message: Message) -> Result<Vec<u8>, ErrorReply> {
        let missing = match self.universe.deliver(&message).await {
            Ok(Delivery::Replied(reply)) => return Ok(reply),
            Ok(Delivery::NotUnderstood(missing)) => missing,
            Err(error) => return Err(error.to_reply()),
        };
        let made = self.make(&missing).await?;
        if let Work::Send { made: told, .. } | Work::Eval { made: told, .. } = &mut message.work {
            *told = Some(made);
        }
        match self.universe.deliver(&message).await {
            Ok(Delivery::Replied(reply)) => Ok(reply),
            Ok(Delivery::NotUnderstood(again)) => Err(not_understood(&again, "even after one method was made")),
            Err(error) => Err(error.to_reply()),
        }
    }

    async fn make(&self, missing: &Unanswered) -> Result<batos_covenant::Made, ErrorReply> {
        let (mind, asked) = (self.mind.clone(), missing.clone());
        // Its own task: a becoming goes on when its sender has given up.
        let becoming = tokio::spawn(async move { mind.make(&asked).await });
        let Ok(ended) = tokio::time::timeout(BECOMING_WAIT, becoming).await else {
            let message = format!("a method for {:?} is being made; ask again with the same id", missing.selector);
            return Err(ErrorReply::new(ErrorKind::Unavailable, message));
        };
        match ended {
            Ok(Ok(Outcome::Made(made))) => Ok(made),
            Ok(Ok(Outcome::Refused(reason))) => Err(ErrorReply::new(
                ErrorKind::Refused,
                format!("nobody understands {:?}, and the draft was refused: {reason}", missing.selector),
            )),
            Ok(Err(BecomingError::Mind(error))) => Err(not_understood(missing, &error.to_string())),
            Ok(Err(BecomingError::Universe(error))) => Err(error.to_reply()),
            Err(error) => Err(ErrorReply::new(ErrorKind::Internal, format!("becoming: {error}"))),
        }
    }
}

fn not_understood(missing: &Unanswered, why: &str) -> ErrorReply {
    let message = format!("object {} does not understand {:?}: {why}", missing.receiver, missing.selector);
    ErrorReply::new(ErrorKind::NotUnderstood, message)
}

/// The verb that names a command in a subject, and the least class that may use it.
fn verb_of(command: &Command) -> (&'static str, AccessClass) {
    match command {
        Command::Send(_) => ("send", AccessClass::Cmd),
        Command::GetFullState => ("get_full_state", AccessClass::Cmd),
        Command::UpdateProperty { .. } => ("update_property", AccessClass::Cmd),
        Command::CreateMethod { .. } => ("create_method", AccessClass::Adm),
        Command::Eval { .. } => ("eval", AccessClass::Adm),
        Command::Apply(_) => ("apply", AccessClass::Adm),
    }
}
