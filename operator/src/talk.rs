//! Asking a running universe, and showing what it answers.

use std::fmt::Write as _;

use batos_bus::Client;
use batos_covenant::{AccessClass, Command, ErrorReply, FullState, OkReply, Reply, Subject, Wire};
use clap::Args;
use serde::de::DeserializeOwned;

use crate::cli::{Bus, Error, Output};

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
}

impl Talk {
    pub fn print(&self, reply: &OkReply) -> Result<(), Error> {
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(reply)?),
            Output::Text => {
                println!("{}", shown(&reply.value));
                if let Some(made) = &reply.made {
                    eprintln!("made {} by becoming {}, drafted by a {} mind", made.selector, made.becoming, made.mind);
                }
            }
        }
        Ok(())
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
        let subject = Subject::new(&self.bus.root, &self.universe, class, object, verb)?;
        let client = Client::connect(&self.bus.url()).await?;
        match client.request(&subject, command, id).await? {
            Reply::Ok(reply) => Ok(reply),
            Reply::Error { error } => Err(told(&error).into()),
        }
    }
}

/// Kind as on the wire, what is wrong, and the activations.
fn told(error: &ErrorReply) -> String {
    let kind = serde_json::to_value(error.kind).ok();
    let mut text = format!("{}: {}", kind.as_ref().and_then(Wire::as_str).unwrap_or("error"), error.message);
    error.stack.iter().for_each(|activation| text += &format!("\n  in {activation}"));
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

pub fn described(state: &FullState) -> String {
    let mut text = String::new();
    let name = state.name.as_deref().unwrap_or("(no name)");
    let _ = writeln!(text, "{name}  id {}  rev {}", state.object, state.rev);
    for (title, rows) in [
        ("slots", state.state.iter().map(|(name, value)| format!("{name} <- {value}")).collect::<Vec<_>>()),
        ("parents", state.parents.iter().map(|(name, id)| format!("{name}* = {id}")).collect()),
        ("methods", state.methods.values().cloned().collect()),
        ("intents", state.intents.iter().map(|(name, text)| format!("{name} {text:?}")).collect()),
    ] {
        if !rows.is_empty() {
            let _ = writeln!(text, "{title}");
            rows.iter().for_each(|row| {
                let _ = writeln!(text, "  {}", row.replace('\n', "\n  "));
            });
        }
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
