//! How the operator reaches universes.

use std::collections::HashMap;

use batos_covenant::{Command, Reply, Subject};
use futures::future::BoxFuture;
use tokio::sync::Mutex;

/// Asks a universe.
pub trait Ask: Send + Sync {
    /// `url` may hold a login. Fails without a reply: whether the request was carried out is not known then.
    fn ask<'a>(
        &'a self,
        url: &'a str,
        subject: &'a Subject,
        command: &'a Command,
    ) -> BoxFuture<'a, Result<Reply, String>>;

    /// Whether the server can be talked to now.
    fn reaches<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// Over NATS; one connection a server.
#[derive(Default)]
pub struct Nats(Mutex<HashMap<String, Connection>>);

/// A connection, and the URL with the login that it was made with.
type Connection = (String, batos_bus::Client);

impl Nats {
    async fn connected(&self, url: &str) -> Result<batos_bus::Client, String> {
        let server = batos_bus::without_login(url);
        if let Some((known, client)) = self.0.lock().await.get(&server)
            && known == url
        {
            return Ok(client.clone());
        }
        // Not under the lock: a server that does not answer holds up nobody else.
        let client = batos_bus::Client::connect(url).await.map_err(|error| error.to_string())?;
        // A connection with an older password ends here.
        self.0.lock().await.insert(server, (url.to_owned(), client.clone()));
        Ok(client)
    }
}

impl Ask for Nats {
    fn ask<'a>(
        &'a self,
        url: &'a str,
        subject: &'a Subject,
        command: &'a Command,
    ) -> BoxFuture<'a, Result<Reply, String>> {
        Box::pin(async move {
            let client = self.connected(url).await?;
            client.request(subject, command, None).await.map_err(|error| error.to_string())
        })
    }

    fn reaches<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            match self.connected(url).await?.is_connected() {
                true => Ok(()),
                false => Err(format!("NATS at {} is lost", batos_bus::without_login(url))),
            }
        })
    }
}
