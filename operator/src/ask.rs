//! Asking an object in words for something that it cannot do yet.

use std::path::PathBuf;

use batos_covenant::{AccessClass, AskCommand, Command, Example};
use clap::Args;

use crate::{cli::Error, style, talk::Talk};

#[derive(Args)]
#[command(
    after_help = "Without examples a person decides about what is made. An example is what a Prototype's manifest has under
spec.examples: given, send, answers, leaves.
Examples:
  batos ask account 'keep the last ten deposits'
  batos ask account 'a monthly fee' --example '{\"given\":{\"balance\":10},\"send\":{\"selector\":\"charge\"},\"leaves\":{\"balance\":9}}'
  batos ask account 'a monthly fee' --examples fee.yaml   (a list of them)"
)]
pub struct Ask {
    /// Name or id of the object
    object: String,
    /// What it shall be able to do
    text: String,
    /// What is made must do this, as JSON; may be given several times
    #[arg(long = "example", value_name = "JSON")]
    example: Vec<String>,
    /// A file with a list of examples, as YAML
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// Id of the request: the same id again gets the same becoming
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    talk: Talk,
}

impl Ask {
    pub async fn run(self) -> Result<(), Error> {
        let mut examples: Vec<Example> = match &self.examples {
            Some(file) => {
                let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
                let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
                serde_yaml::from_str(&text).map_err(|error| failed(&error))?
            }
            None => Vec::new(),
        };
        for example in &self.example {
            let bad = |error| format!("{example}: {error}");
            examples.push(serde_json::from_str(example).map_err(bad)?);
        }
        let command = Command::Ask(AskCommand { text: self.text, examples });
        let reply = self.talk.ask(AccessClass::Adm, &self.object, "ask", &command, self.id.as_deref()).await?;
        if self.talk.structured(&reply)? {
            return Ok(());
        }
        if let Some(made) = &reply.made {
            println!("{}", made.brings.join(" "));
            eprintln!(
                "{}",
                style::note(format!("made by becoming {}, drafted by a {} mind", made.becoming, made.mind))
            );
        }
        Ok(())
    }
}
