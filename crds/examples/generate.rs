//! Writes the definitions beside this crate: `hack/generate` runs it.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, definition) in batos_crds::definitions() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).with_extension("yaml");
        let text = serde_yaml::to_string(&definition)?;
        std::fs::write(path, format!("# Generated from src by hack/generate.\n{text}"))?;
    }
    Ok(())
}
