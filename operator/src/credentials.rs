//! Who may use the bus of `batos up`: users made at genesis, and the nats-server configuration that enforces what each
//! may do. On the wire authority is the subject's class (`cmd`, `adm`), and these permissions guard the classes.
//!
//! | user | may ask | may hear | inboxes |
//! |---|---|---|---|
//! | `sender`, whoever does not log in | `cmd` | events | `_INBOX.>` |
//! | `architect` | `cmd`, `adm`, replays of the event stream | events | `_INBOX_architect.>` |
//! | `system`, the workers | answers to all, events, the event stream | `cmd`, `adm` | `_INBOX_system.>` |

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use batos_bus::INBOX_PREFIX;
use batos_mind::Approver;
use serde::{Deserialize, Serialize};

use crate::cli::Error;

/// File beside the data that lets its reader act as the Architect.
pub const ARCHITECT_FILE: &str = "architect.url";

/// File beside the data with the key that the Architect's decisions are signed with (Ed25519, PKCS#8).
pub const KEY_FILE: &str = "architect.key";

/// Passwords of one universe's bus.
#[derive(Serialize, Deserialize)]
pub struct Credentials {
    system: String,
    architect: String,
}

impl Credentials {
    /// Those of `data`, made anew when there are none.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let path = data.join("credentials.json");
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = Self { system: secret()?, architect: secret()? };
                write_private(&path, &serde_json::to_vec(&made)?)?;
                Ok(made)
            }
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        }
    }

    /// How the workers connect.
    pub fn system_url(&self, port: u16) -> String {
        format!("nats://system:{}@127.0.0.1:{port}", self.system)
    }

    /// Leaves the Architect's URL in a file that only its owner reads.
    pub fn write_architect(&self, data: &Path, port: u16) -> Result<PathBuf, Error> {
        let path = data.join(ARCHITECT_FILE);
        write_private(&path, format!("nats://architect:{}@127.0.0.1:{port}\n", self.architect).as_bytes())?;
        Ok(path)
    }

    /// The users of nats-server's configuration.
    pub fn configuration(&self, root: &str, universe: &str) -> Result<String, Error> {
        let of = |class: &str| format!("{root}.v1.{universe}.{class}.>");
        let stream = format!("{root}-{universe}-events");
        let inbox = |user: &str| format!("{INBOX_PREFIX}{user}.>");
        let user = |name: &str, password: &str, publish: &[String], subscribe: &[String]| {
            serde_json::json!({
                "user": name, "password": password,
                "permissions": { "publish": publish, "subscribe": subscribe },
            })
        };
        let anyone = "_INBOX.>".to_owned();
        // Workers among themselves.
        let crew = format!("{root}.v1.{universe}.wrk");
        let users = [
            user(
                "system",
                &self.system,
                &[
                    of("evt"),
                    crew.clone(),
                    of("wrk"),
                    anyone.clone(),
                    inbox("architect"),
                    inbox("system"),
                    "$JS.API.>".to_owned(),
                ],
                &[of("cmd"), of("adm"), crew, of("wrk"), inbox("system")],
            ),
            user(
                "architect",
                &self.architect,
                &[
                    of("cmd"),
                    of("adm"),
                    inbox("architect"),
                    format!("$JS.API.STREAM.INFO.{stream}"),
                    format!("$JS.API.CONSUMER.*.{stream}"),
                    format!("$JS.API.CONSUMER.*.{stream}.>"),
                    format!("$JS.ACK.{stream}.>"),
                    "$JS.FC.>".to_owned(),
                ],
                &[of("evt"), inbox("architect")],
            ),
            user("sender", &secret()?, &[of("cmd")], &[of("evt"), anyone]),
        ];
        // JSON is a subset of the server's configuration language.
        Ok(format!("no_auth_user: sender\nauthorization: {}\n", serde_json::json!({ "users": users })))
    }
}

/// The Architect's public key; the key itself is made beside the data when there is none.
pub fn approver(data: &Path) -> Result<Approver, Error> {
    let path = data.join(KEY_FILE);
    let failed = |e: &dyn std::fmt::Display| Error::from(format!("{}: {e}", path.display()));
    let key = match std::fs::read(&path) {
        Ok(key) => key,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (key, _) = batos_mind::signing_key().map_err(|e| failed(&e))?;
            write_private(&path, &key)?;
            key
        }
        Err(error) => return Err(failed(&error)),
    };
    batos_mind::public_key(&key).map_err(|e| failed(&e))
}

/// 128 random bits, in hexadecimal.
fn secret() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| format!("no randomness: {e}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A file that its owner alone may read, from its first byte on.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let partial = path.with_extension("partial");
        let _ = std::fs::remove_file(&partial);
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|e| format!("{}: {e}", path.display()).into())
}
