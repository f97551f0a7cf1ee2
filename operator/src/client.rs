//! Commands that talk to a running universe over the bus.

use std::{io::IsTerminal, num::NonZeroUsize, path::PathBuf, time::Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use batos_covenant::{
    AccessClass, Command, ExportCommand, ExportPage, FullState, GetFullStateCommand, HistoryCommand, HistoryPage,
    ListCommand, Listing, SendCommand, TranscriptEvent, Wire, decode,
};
use batos_uvm::{image, universe::ImageRow};
use clap::Args;
use futures::StreamExt;

use crate::{
    cli::{Error, Output},
    image_file::{ImageWriter, Scratch, Written, thin_out},
    progress::Progress,
    s3, style,
    talk::{Talk, described, message, shown, transcribed},
};

/// Stands for the universe itself where a subject wants an object.
pub const UNIVERSE: &str = "_";

#[derive(Args)]
#[command(after_help = "Examples:
  batos send account deposit: 100
  batos send account balance
  batos send grid at: 3 put: shoe
  batos send account deposit: 5 --id monday   (sent again it answers the same and does nothing)
  batos send group add: '{\"$ref\": \"ID\"}'    (an object, by its id)
Arguments are JSON; what is no JSON is a string. What the turn shows on the Transcript goes to standard error.")]
pub struct Send {
    /// Name or id of the object
    object: String,
    /// The message: a selector with its arguments
    #[arg(required = true, num_args = 1.., allow_negative_numbers = true, value_name = "MESSAGE")]
    message: Vec<String>,
    /// Message id: a repeat with the same id gets the first reply and does nothing
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    pub talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Needs the Architect's credentials. Examples:
  batos eval 'account deposit: 100'
  batos eval --object account 'balance * 2'")]
pub struct Eval {
    /// Statements in the language
    source: String,
    /// What self is
    #[arg(long, default_value = "genesis")]
    object: String,
    #[command(flatten)]
    talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos get account
  batos get account -o yaml
  batos get 00000000000000000000000000000001
Beside a slot stands the revision that gave it its content, unless that is the first.")]
pub struct Get {
    /// Name or id of the object
    object: String,
    #[command(flatten)]
    talk: Talk,
}

impl Send {
    pub async fn run(self) -> Result<(), Error> {
        let (selector, arguments) = message(&self.message)?;
        let command = Command::Send(SendCommand { selector, arguments });
        let class = AccessClass::Cmd;
        let reply = self.talk.ask(class, &self.object, "send", &command, self.id.as_deref()).await?;
        self.talk.print(&reply)
    }
}

impl Eval {
    pub async fn run(self) -> Result<(), Error> {
        let command = Command::Eval { source: self.source };
        let reply = self.talk.ask(AccessClass::Adm, &self.object, "eval", &command, None).await?;
        self.talk.print(&reply)
    }
}

impl Get {
    pub async fn run(self) -> Result<(), Error> {
        let mut after = None;
        let mut whole: Option<FullState> = None;
        loop {
            let command = Command::GetFullState(GetFullStateCommand { after, revs: true });
            let page: FullState = self.talk.page(AccessClass::Cmd, &self.object, "get_full_state", &command).await?;
            after = page.next.clone();
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => whole.append(page),
            }
            if after.is_none() {
                break;
            }
        }
        let state = whole.unwrap_or_default();
        if !self.talk.structured(&state)? {
            print!("{}", described(&state));
        }
        Ok(())
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos list
  batos list --all -o json")]
pub struct List {
    /// Also the objects of the image, which every universe has
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    talk: Talk,
}

impl List {
    pub async fn run(self) -> Result<(), Error> {
        let mut objects = Vec::new();
        let mut after = None;
        loop {
            let command = Command::List(ListCommand { after: after.take() });
            let page: Listing = self.talk.page(AccessClass::Cmd, UNIVERSE, "list", &command).await?;
            objects.extend(page.objects);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        let all = objects.len();
        objects.retain(|object| self.all || !image::is_name(&object.name));
        if self.talk.structured(&objects)? {
            return Ok(());
        }
        objects.iter().for_each(|object| println!("{}  {}", style::aside(&object.object), object.name));
        if objects.len() < all && std::io::stderr().is_terminal() {
            let text = format!("and {} objects of the image, which --all shows", all - objects.len());
            eprintln!("{}", style::note(text));
        }
        Ok(())
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos history account
  batos history account balance --limit 3
A method that all clones share is in the history of their traits: give its id, which `batos get` shows as parent.")]
pub struct History {
    /// Name or id of the object
    object: String,
    /// Only changes of this slot
    slot: Option<String>,
    /// Most changes that are shown
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    talk: Talk,
}

impl History {
    pub async fn run(self) -> Result<(), Error> {
        let mut changes = Vec::new();
        let (mut before, mut data_from) = (None, None);
        while changes.len() < self.limit {
            let command = Command::History(HistoryCommand { slot: self.slot.clone(), before });
            let page: HistoryPage = self.talk.page(AccessClass::Cmd, &self.object, "history", &command).await?;
            changes.extend(page.changes);
            data_from = data_from.or(page.data_from);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        changes.truncate(self.limit);
        if self.talk.structured(&changes)? {
            return Ok(());
        }
        let content = |content: &Option<Wire>| content.as_ref().map_or("(none)".to_owned(), shown);
        for change in &changes {
            let (was, became) = (content(&change.was), content(&change.became));
            let by = change.by.as_ref().map_or(String::new(), |by| format!("  ({by})"));
            println!("rev {:<6} {}: {was} -> {became}{by}", change.rev, change.slot);
        }
        if let Some(rev) = data_from {
            eprintln!("data before rev {rev} is no longer kept; methods are");
        }
        Ok(())
    }
}

#[derive(Args)]
#[command(after_help = "Needs the Architect's credentials. Examples:
  batos undo account balance
  batos undo account withdraw:    (a method, also one of the object's traits)
An undo is a change of its own: a second one takes the first back.")]
pub struct Undo {
    /// Name or id of the object
    object: String,
    /// The slot whose last change is taken back
    slot: String,
    #[command(flatten)]
    talk: Talk,
}

impl Undo {
    pub async fn run(self) -> Result<(), Error> {
        let command = Command::Undo { slot: self.slot };
        let reply = self.talk.ask(AccessClass::Adm, &self.object, "undo", &command, None).await?;
        self.talk.print(&reply)
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos info
  batos info --universe other -o json
Objects are counted at least every six hours, and every ten minutes where that is quickly done.")]
pub struct Info {
    #[command(flatten)]
    talk: Talk,
}

impl Info {
    pub async fn run(self) -> Result<(), Error> {
        let reply = self.talk.ask(AccessClass::Cmd, UNIVERSE, "info", &Command::Info, None).await?;
        self.talk.print(&reply)
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos watch
  batos watch account -o json    (a line of JSON for each event)
Events are changes of state, what turns show on the Transcript, and the steps in which missing methods are made.")]
pub struct Watch {
    /// Name or id of the object; all when absent
    object: Option<String>,
    #[command(flatten)]
    talk: Talk,
}

impl Watch {
    /// Prints events until it is interrupted.
    pub async fn run(self) -> Result<(), Error> {
        let client = self.talk.client().await?;
        let object = self.object.as_deref().unwrap_or("*");
        let subject = batos_covenant::event_subject(&self.talk.bus.root, &self.talk.universe, object, "*");
        let mut events = client.listen(&subject).await?;
        if std::io::stderr().is_terminal() {
            eprintln!("watching {subject}; Ctrl-C ends");
        }
        let stop = crate::cli::stop_signal();
        tokio::pin!(stop);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = &mut stop => return Ok(()),
            };
            let Some((subject, payload)) = event else { return Err("the connection is closed".into()) };
            let (event, _): (Wire, _) = decode(&payload)?;
            match self.talk.output {
                Output::Json => println!("{}", serde_json::json!({ "subject": subject, "event": event })),
                Output::Yaml => {
                    print!(
                        "---\n{}",
                        serde_yaml::to_string(&serde_json::json!({ "subject": subject, "event": event }))?
                    );
                }
                Output::Text => println!("{}", summary(&subject, &event)),
            }
        }
    }
}

/// `account.state rev 4: balance <- 100`.
fn summary(subject: &str, event: &Wire) -> String {
    let (_, about) = subject.split_once(".evt.").unwrap_or(("", subject));
    let text = |key: &str| event.get(key).map(shown);
    if let Some(object) = about.strip_suffix(".transcript")
        && let Ok(event) = serde_json::from_value::<TranscriptEvent>(event.clone())
    {
        let shown = transcribed(&event.transcript);
        let lines: Vec<String> = shown.lines().map(|line| format!("{object}: {line}")).collect();
        return lines.join("\n");
    }
    if let Some(step) = text("step") {
        return format!("{about} {} {step}", text("selector").unwrap_or_default());
    }
    let changed: Vec<Wire> = event.get("changed").and_then(Wire::as_array).cloned().unwrap_or_default();
    let slots = changed.iter().filter_map(Wire::as_str).map(|slot| match event.pointer(&format!("/state/{slot}")) {
        Some(value) => format!("{slot} <- {value}"),
        None => slot.to_owned(),
    });
    format!("{about} rev {}: {}", text("rev").unwrap_or_default(), slots.collect::<Vec<_>>().join(", "))
}

#[derive(Args)]
#[command(after_help = "Needs the Architect's credentials. Examples:
  batos export monday.image
  batos import monday.image --data elsewhere    (restores it there)
  batos export images/$(date +%FT%T).image --keep 7
  batos export s3://BUCKET/images/monday.image
Buckets need AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and room for the image in TMPDIR.
The universe goes on meanwhile; the image shows it as it was when the export began.")]
pub struct Export {
    /// File to write, or s3://BUCKET/KEY
    file: PathBuf,
    /// Removes older *.image files beside it, by their names, so that COUNT are left with this one
    #[arg(long, value_name = "COUNT")]
    keep: Option<NonZeroUsize>,
    /// Also writes into this file, as JSON, what was written: Kubernetes reads it from there
    #[arg(long, value_name = "FILE", hide = true)]
    report: Option<PathBuf>,
    #[command(flatten)]
    talk: Talk,
}

impl Export {
    pub async fn run(self) -> Result<(), Error> {
        let begun = Instant::now();
        if self.keep.is_some() && self.file.extension().is_none_or(|extension| extension != "image") {
            return Err(format!("{}: with --keep the file's name ends in .image", self.file.display()).into());
        }
        let object = s3::Object::at(&self.file)?;
        let scratch = object.is_some().then(Scratch::new);
        let file = scratch.as_ref().map_or(self.file.as_path(), Scratch::path);
        let mut image = ImageWriter::create(file, &self.talk.universe)?;
        let mut wanted = ExportCommand::default();
        let mut progress = Progress::new("rows are written");
        loop {
            let command = Command::Export(wanted);
            let page: ExportPage = self.talk.page(AccessClass::Adm, UNIVERSE, "export", &command).await?;
            let rows: Vec<ImageRow> = rmp_serde::from_slice(&BASE64_STANDARD.decode(&page.rows)?)?;
            image.page(&rows)?;
            progress.at(image.rows(), None);
            let Some(next) = page.next else { break };
            wanted = ExportCommand { snapshot: Some(page.snapshot), after: Some(next) };
        }
        drop(progress);
        let Written { rows, objects, bytes, digest } = image.finish()?;
        if let Some(object) = &object {
            object.put(file).await?;
        }
        match (self.keep, &object) {
            (Some(keep), Some(object)) => object.thin_out(keep.get()).await?,
            (Some(keep), None) => thin_out(&self.file, keep.get())?,
            (None, _) => {}
        }
        let (universe, file) = (&self.talk.universe, self.file.display().to_string());
        let told = serde_json::json!({
            "universe": universe, "file": file, "rows": rows, "objects": objects, "bytes": bytes, "digest": digest,
            "milliseconds": u64::try_from(begun.elapsed().as_millis())?,
        });
        if let Some(report) = &self.report {
            std::fs::write(report, told.to_string()).map_err(|e| format!("{}: {e}", report.display()))?;
        }
        if !self.talk.structured(&told)? {
            println!("{rows} rows of universe {universe}, {objects} objects, are in {file}");
        }
        Ok(())
    }
}
