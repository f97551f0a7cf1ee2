//! Writes the selectors of the image's prototypes into LANGUAGE.md, between its markers.

use std::{error::Error, fmt::Write, fs, path::Path};

use batos_graph::{SlotKind, Value};
use batos_uvm::image;

const BEGIN: &str = "<!-- selectors: begin -->\n";
const END: &str = "<!-- selectors: end -->\n";

fn main() -> Result<(), Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("LANGUAGE.md");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("LANGUAGE.md has no begin marker")?;
    let (_, after) = rest.split_once(END).ok_or("LANGUAGE.md has no end marker")?;
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", selectors()?))?;
    Ok(())
}

/// A line for each prototype: its name, its parent, its selectors in alphabetical order.
fn selectors() -> Result<String, Box<dyn Error>> {
    let image = image::genesis()?;
    let name = |value: &Value| {
        let Value::Ref(wanted) = value else { return None };
        image.iter().find(|(id, _)| id == wanted).and_then(|(_, record)| record.name.clone())
    };
    let mut text = String::new();
    for (_, record) in &image {
        let parent = record.slots.iter().find_map(|slot| match &slot.kind {
            SlotKind::Parent(value) => name(value),
            _ => None,
        });
        let mut selectors: Vec<&str> = record
            .slots
            .iter()
            .filter(|slot| !matches!(slot.kind, SlotKind::Parent(_)))
            .map(|slot| slot.name.as_str())
            .collect();
        selectors.sort_unstable();
        let parent = parent.map(|parent| format!(" (parent {parent})")).unwrap_or_default();
        let selectors: Vec<String> = selectors.iter().map(|selector| format!("`{selector}`")).collect();
        let dash = if selectors.is_empty() { "" } else { ": " };
        writeln!(text, "- **{}**{parent}{dash}{}", record.name.as_deref().unwrap_or_default(), selectors.join(" "))?;
    }
    Ok(text)
}
