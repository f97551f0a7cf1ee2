//! Prints the JSON Schema of everything that travels on the bus.

use batos_covenant::{Command, FullState, ImageEvent, PostFailedEvent, Reply, TranscriptEvent, UvmStateUpdateEvent};
use schemars::{JsonSchema, schema_for};

/// What travels on the bus, by the place where it travels.
#[derive(JsonSchema)]
#[schemars(rename = "Covenant")]
#[allow(dead_code, reason = "only its schema is used")]
struct Wire {
    /// Payload on `<root>.v1.<universe>.cmd|adm.<object>.<verb>`.
    command: Command,
    /// Payload of the reply.
    reply: Reply,
    /// `value` of the reply to `get_full_state`.
    full_state: FullState,
    /// Payload on `<root>.v1.<universe>.evt.<object>.state`.
    state_event: UvmStateUpdateEvent,
    failed_event: PostFailedEvent,
    /// Payload on `<root>.v1.<universe>.evt.<object>.transcript`.
    transcript_event: TranscriptEvent,
    /// Payload on `<root>.v1.<universe>.evt.genesis.image`.
    image_event: ImageEvent,
}

fn main() -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string_pretty(&schema_for!(Wire))?);
    Ok(())
}
