//! Asking a running universe, and showing what it answers.

use std::fmt::Write as _;

use batos_bus::{BusErrorKind, Client};
use batos_covenant::{
    AccessClass, Command, ErrorKind, ErrorReply, FullState, OkReply, Reply, Subject, SubjectError, Transcript, Wire,
};
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use crate::{
    cli::{Bus, Error, Output},
    style,
};

/// Elements of a collection that are shown to people.
const ELEMENTS: usize = 100;

/// Which universe, and how to print.
#[derive(Args, Clone)]
pub struct Talk {
    /// Universe to talk to
    #[arg(long, short, env = "BATOS_UNIVERSE", default_value = "quickstart")]
    pub universe: String,
    #[command(flatten)]
    pub bus: Bus,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Output,
    /// One connection for all that a command asks.
    #[arg(skip)]
    client: OnceCell<Client>,
}

impl Talk {
    /// Prints a value for programs, if that is wanted.
    pub fn structured(&self, value: &impl Serialize) -> Result<bool, Error> {
        self.output.structured(value)
    }

    pub fn print(&self, reply: &OkReply) -> Result<(), Error> {
        if self.structured(reply)? {
            return Ok(());
        }
        if let Some(transcript) = &reply.transcript {
            eprint!("{}", transcribed(transcript));
        }
        println!("{}", shown(&reply.value));
        if let Some(made) = &reply.made {
            let text = format!("made {} by becoming {}, drafted by a {} mind", made.selector, made.becoming, made.mind);
            eprintln!("{}", style::note(text));
        }
        Ok(())
    }

    pub async fn client(&self) -> Result<&Client, Error> {
        let connected = self.client.get_or_try_init(|| async { Client::connect(&self.bus.url()).await }).await;
        connected
            .map_err(|error| format!("{error}\n  is `batos up` running? --nats or BATOS_NATS say where NATS is").into())
    }

    /// The answer to a question that changes nothing, so that it may be repeated.
    pub async fn page<T: DeserializeOwned>(
        &self,
        class: AccessClass,
        object: &str,
        verb: &str,
        command: &Command,
    ) -> Result<T, Error> {
        Ok(serde_json::from_value(self.ask(class, object, verb, command, None).await?.value)?)
    }

    pub async fn ask(
        &self,
        class: AccessClass,
        object: &str,
        verb: &str,
        command: &Command,
        id: Option<&str>,
    ) -> Result<OkReply, Error> {
        let subject =
            Subject::new(&self.bus.root, &self.universe, class, object, verb).map_err(|error| match error {
                SubjectError::Token(ref token) if token == object => {
                    format!("{error}\n  name the object by its id: `batos list --all` shows ids")
                }
                other => other.to_string(),
            })?;
        let answered = self.client().await?.request(&subject, command, id).await;
        match answered.map_err(|error| self.unanswered(error))? {
            Reply::Ok(reply) => Ok(reply),
            Reply::Error { error } => {
                if let Some(transcript) = &error.transcript {
                    eprint!("{}", transcribed(transcript));
                }
                Err(told(&error).into())
            }
        }
    }

    fn unanswered(&self, error: batos_bus::BusError) -> Error {
        let hint = match error.kind {
            BusErrorKind::NoResponders => "\n  --universe or BATOS_UNIVERSE name another one",
            BusErrorKind::Forbidden => {
                "\n  a login is for one universe; the Architect's URL is in architect.url beside its data: pass it by --nats"
            }
            _ => "",
        };
        format!("{error}{hint}").into()
    }
}

/// What a turn has shown, ending in a new line.
pub fn transcribed(transcript: &Transcript) -> String {
    let mut text = transcript.text.clone();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if transcript.left_out > 0 {
        let _ = writeln!(text, "({} more bytes did not fit into the transcript)", transcript.left_out);
    }
    text
}

/// Kind as on the wire, what is wrong, the activations, and what to do.
fn told(error: &ErrorReply) -> String {
    let kind = serde_json::to_value(error.kind).ok();
    let mut text = format!("{}: {}", kind.as_ref().and_then(Wire::as_str).unwrap_or("error"), error.message);
    error.stack.iter().for_each(|activation| text += &format!("\n  in {activation}"));
    text += match error.kind {
        ErrorKind::NoSuchObject => "\n  `batos list` names the objects",
        ErrorKind::NotUnderstood => {
            "\n  `batos get OBJECT` shows what it understands; an example in its Prototype lets it be made"
        }
        ErrorKind::Unavailable | ErrorKind::Conflict => "\n  send it again, with the same --id if it had one",
        _ => "",
    };
    text
}

/// `deposit: 100`, `balance`, `+ 3`, as words of a command line.
pub fn message(words: &[String]) -> Result<(String, Vec<Wire>), Error> {
    let value = |word: &String| serde_json::from_str(word).unwrap_or_else(|_| Wire::String(word.clone()));
    let is_keyword = |word: &String| word.ends_with(':');
    match words {
        [selector] if !is_keyword(selector) => Ok((selector.clone(), Vec::new())),
        [operator, argument] if !operator.contains(|c: char| c.is_alphanumeric()) => {
            Ok((operator.clone(), vec![value(argument)]))
        }
        _ => {
            let (pairs, rest) = words.as_chunks::<2>();
            match rest.is_empty() && pairs.iter().all(|[keyword, _]| is_keyword(keyword)) {
                true => Ok(pairs.iter().map(|[keyword, argument]| (keyword.as_str(), value(argument))).unzip()),
                false => Err(format!(
                    "{:?} is no message: write a name, an operator with an argument, or keywords with one argument each \
                     (deposit: 100)",
                    words.join(" ")
                )
                .into()),
            }
        }
    }
}

/// Text as it is, all else as JSON.
pub fn shown(value: &Wire) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A state for people.
pub fn described(state: &FullState) -> String {
    let mut text = String::new();
    let name = style::title(state.name.as_deref().unwrap_or("(no name)"));
    let _ = writeln!(text, "{name}  {}", style::aside(format!("id {}  rev {}", state.object, state.rev)));
    // When it got what it holds, unless that was when the object was made.
    let since = |name: &String| match state.revs.get(name) {
        Some(rev) if *rev > 1 => format!("  {}", style::aside(format!("rev {rev}"))),
        _ => String::new(),
    };
    let slots = state.state.iter().map(|(name, value)| format!("{name} <- {value}{}", since(name)));
    let methods = state.methods.iter().map(|(name, source)| format!("{source}{}", since(name)));
    let elements = state.elements.iter().flatten();
    for (title, rows) in [
        ("slots", slots.collect::<Vec<_>>()),
        ("parents", state.parents.iter().map(|(name, id)| format!("{name}* = {id}{}", since(name))).collect()),
        ("methods", methods.collect()),
        ("intents", state.intents.iter().map(|(name, text)| format!("{name} {text:?}{}", since(name))).collect()),
        ("elements", elements.take(ELEMENTS).map(Wire::to_string).collect()),
    ] {
        if !rows.is_empty() {
            let _ = writeln!(text, "{}", style::title(title));
            rows.iter().for_each(|row| {
                let _ = writeln!(text, "  {}", row.replace('\n', "\n  "));
            });
        }
    }
    let shown = state.elements.as_ref().map_or(0, |elements| elements.len().min(ELEMENTS) as u64);
    if let Some(size) = state.size.filter(|size| *size > shown) {
        let _ = writeln!(text, "  {}", style::aside(format!("… {size} elements in all")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_make_a_message() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (text, selector, arguments) in [
            ("balance", "balance", vec![]),
            ("deposit: 100", "deposit:", vec![json!(100)]),
            ("at: 1 put: shoe", "at:put:", vec![json!(1), json!("shoe")]),
            ("deposit: -1.5", "deposit:", vec![json!(-1.5)]),
            ("+ 3", "+", vec![json!(3)]),
            ("say: \"3\"", "say:", vec![json!("3")]),
        ] {
            assert_eq!(message(&words(text)).unwrap(), (selector.to_owned(), arguments), "{text}");
        }
        for text in ["deposit:", "deposit: 1 2", "a b", "deposit: 1 put:"] {
            assert!(message(&words(text)).unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
