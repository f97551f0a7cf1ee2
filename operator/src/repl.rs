//! `batos repl`: a line, its answer, the next line.

use std::path::PathBuf;

use batos_covenant::{AccessClass, Command, ListCommand, Listing, Wire};
use clap::Args;
use rustyline::{
    Context, Editor, Helper, Highlighter, Hinter, Validator, completion::Completer, error::ReadlineError,
    history::FileHistory,
};

use crate::{
    cli::Error,
    talk::{Talk, shown, transcribed},
};

#[derive(Args)]
#[command(after_help = "Needs the Architect's credentials. Tab completes names and selectors; Ctrl-D ends. Example:
  batos repl --object account
  > deposit: 100
  100")]
pub struct Repl {
    /// What self is
    #[arg(long, default_value = "genesis")]
    object: String,
    #[command(flatten)]
    talk: Talk,
}

impl Repl {
    pub async fn run(self) -> Result<(), Error> {
        let words = self.words().await?;
        println!("{} words of universe {}; self is {}", words.len(), self.talk.universe, self.object);
        let path = history_file();
        let mut editor = Editor::<Words, FileHistory>::new()?;
        editor.set_helper(Some(Words { words }));
        if let Some(path) = &path {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        loop {
            // Reading blocks, so the editor goes to a thread of its own and comes back with the line.
            let (returned, line) = tokio::task::spawn_blocking(move || {
                let line = editor.readline("> ");
                (editor, line)
            })
            .await?;
            editor = returned;
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    editor.add_history_entry(&line)?;
                    self.evaluate(line).await;
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(path) = &path {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            editor.save_history(path)?;
        }
        Ok(())
    }

    async fn evaluate(&self, source: String) {
        match self.talk.ask(AccessClass::Adm, &self.object, "eval", &Command::Eval { source }, None).await {
            Ok(reply) => {
                if let Some(transcript) = &reply.transcript {
                    print!("{}", transcribed(transcript));
                }
                println!("{}", shown(&reply.value));
            }
            Err(error) => println!("{error}"),
        }
    }

    /// Names of the universe's objects, and the selectors of those that can be written as they are.
    async fn words(&self) -> Result<Vec<String>, Error> {
        let mut words = Vec::new();
        let mut after = None;
        loop {
            let command = Command::List(ListCommand { after: after.take() });
            let page: Listing = self.talk.page(AccessClass::Cmd, "_", "list", &command).await?;
            words.extend(page.objects.into_iter().map(|object| object.name));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        words.retain(|name| name.chars().all(char::is_alphanumeric));
        let source = format!(
            "(({{ {} }} inject: Set new into: [ :all :each | all addAll: (Mirror on: each) selectors; yourself ]) \
             collect: [ :each | each asString ]) asArray",
            words.join(". ")
        );
        let command = Command::Eval { source };
        let selectors: Wire = self.talk.page(AccessClass::Adm, &self.object, "eval", &command).await?;
        let selectors = selectors.as_array().cloned().unwrap_or_default();
        words.extend(selectors.iter().filter_map(Wire::as_str).map(str::to_owned));
        words.sort();
        words.dedup();
        Ok(words)
    }
}

fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|folder| folder.join("batos/repl_history"))
}

/// Completes words.
#[derive(Helper, Hinter, Highlighter, Validator)]
struct Words {
    words: Vec<String>,
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(completions(&self.words, line.get(..at).unwrap_or(line)))
    }
}

/// Where the last word of `line` begins, and what it may become.
fn completions(words: &[String], line: &str) -> (usize, Vec<String>) {
    let start = line
        .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
        .map_or(0, |before| before + line.get(before..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8));
    let begun = line.get(start..).unwrap_or_default();
    let fits = |word: &&String| !begun.is_empty() && word.starts_with(begun);
    (start, words.iter().filter(fits).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::completions;

    #[test]
    fn the_last_word_is_completed() {
        let words = ["account", "at:", "at:put:", "balance"].map(str::to_owned);
        for (line, start, wanted) in [
            ("acc", 0, vec!["account"]),
            ("account b", 8, vec!["balance"]),
            ("(account a", 9, vec!["account", "at:", "at:put:"]),
            ("x at:", 2, vec!["at:", "at:put:"]),
            ("→a", 3, vec!["account", "at:", "at:put:"]),
            ("", 0, vec![]),
            ("account ", 8, vec![]),
        ] {
            assert_eq!(completions(&words, line), (start, wanted.into_iter().map(str::to_owned).collect()), "{line:?}");
        }
    }
}
