//! The bus: requests, replies and events over NATS. It moves bytes; what they mean is the worker's business.

mod client;
mod counters;
mod crew;
mod error;
mod publisher;
mod server;

pub use client::{Client, INBOX_PREFIX, without_login};
pub use counters::{Count, Counters};
pub use crew::Crew;
pub use error::{BusError, BusErrorKind};
pub use publisher::{Event, Publisher};
pub use server::{Handler, Refusal, Request, serve};
