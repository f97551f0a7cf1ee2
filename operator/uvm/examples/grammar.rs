//! Writes what servers of models are sent, made of `grammar.ebnf`: `models.ebnf` and `models.lark`.

use std::{error::Error, fs, path::Path};

use batos_uvm::syntax::grammar::Grammar;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let grammar = Grammar::read()?;
    fs::write(folder.join("models.ebnf"), grammar.ebnf())?;
    fs::write(folder.join("models.lark"), grammar.lark()?)?;
    Ok(())
}
