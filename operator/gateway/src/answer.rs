//! An engine's answer on its way to the client, piece by piece as it comes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use tokio::time::{Instant, Sleep};

use crate::{desk::Ticket, failure::Failure};

/// The rest of an answer that has begun. Dropped before its end, as when the client leaves, it closes the engine's
/// connection, which makes the engine stop, and gives the request's place back.
pub struct Answer {
    first: Option<Bytes>,
    rest: reqwest::Body,
    /// Until the answer has ended.
    ticket: Option<Ticket>,
    pod: u32,
    /// A stream of events, in which a failure can be told.
    events: bool,
    silence: Duration,
    /// Runs while the engine is waited for, not while the client is.
    deadline: Pin<Box<Sleep>>,
    waits: bool,
    outcome: &'static str,
}

/// The first piece of an answer; none if it has none.
pub async fn first(body: &mut reqwest::Body) -> reqwest::Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if !data.is_empty() => return Ok(Some(data)),
            _ => {}
        }
    }
    Ok(None)
}

impl Answer {
    pub fn new(first: Option<Bytes>, rest: reqwest::Body, ticket: Ticket, pod: u32, answered: Answered) -> Self {
        let Answered { events, ok, silence } = answered;
        ticket.begins();
        let deadline = Box::pin(tokio::time::sleep(silence));
        let outcome = if ok { "ok" } else { "refused" };
        let mut answer =
            Self { first, rest, ticket: Some(ticket), pod, events, silence, deadline, waits: false, outcome };
        if answer.first.is_none() {
            answer.end_if_whole();
        }
        answer
    }

    fn end(&mut self, outcome: &'static str) {
        if let Some(mut ticket) = self.ticket.take() {
            ticket.ends(outcome);
        }
    }

    /// Nobody asks for the end of a body whose length he was told.
    fn end_if_whole(&mut self) {
        if self.rest.is_end_stream() {
            self.end(self.outcome);
        }
    }

    fn fail(&mut self, failure: &Failure) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(ticket) = &self.ticket {
            ticket.suspect(self.pod);
        }
        self.end(failure.code());
        self.rest = reqwest::Body::from("");
        Poll::Ready(Some(match self.events {
            true => Ok(Frame::data(Bytes::from(format!("data: {}\n\n", failure.body())))),
            false => Err(std::io::Error::other(failure.to_string())),
        }))
    }
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub events: bool,
    pub ok: bool,
    /// How long the engine may send nothing.
    pub silence: Duration,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            this.end_if_whole();
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if this.ticket.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.rest).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waits = false;
                this.end_if_whole();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.end(this.outcome);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => this.fail(&Failure::CutOff),
            Poll::Pending => {
                if !std::mem::replace(&mut this.waits, true) {
                    this.deadline.as_mut().reset(Instant::now() + this.silence);
                }
                match this.deadline.as_mut().poll(context) {
                    Poll::Ready(()) => this.fail(&Failure::Silent(this.silence)),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.ticket.is_none()
    }
}
