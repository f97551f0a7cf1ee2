//! The key that decisions of people are signed with (Ed25519, RFC 8032), in a Secret beside the operator. Universes know its
//! public half. It is nowhere else, and nothing prints it.

use std::collections::BTreeMap;

use batos_covenant::Decision;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};

use crate::meta;

/// In the Secret: the key as PKCS#8.
const KEY: &str = "approver.key";

pub struct Signer {
    pair: Ed25519KeyPair,
    /// In hexadecimal, as `spec.mind.approvers` has it.
    pub public: String,
}

impl Signer {
    pub fn of(secret: &Secret) -> Result<Self, String> {
        let key = secret.data.as_ref().and_then(|data| data.get(KEY));
        let key = key.ok_or_else(|| format!("it has no key {KEY:?}"))?;
        let pair = Ed25519KeyPair::from_pkcs8(&key.0).map_err(|_| format!("{KEY:?} is no signing key"))?;
        let public = hex(pair.public_key().as_ref());
        Ok(Self { pair, public })
    }

    /// A Secret with a new key.
    pub fn secret(name: &str) -> Result<Secret, String> {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "no randomness".to_owned())?;
        let labels = [("app.kubernetes.io/name", "batos"), ("app.kubernetes.io/managed-by", meta::MANAGER)];
        Ok(Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(key.as_ref().to_vec()))])),
            immutable: Some(true),
            ..Secret::default()
        })
    }

    /// The same decision gets the same signature, so that a repeat is known as one.
    pub fn sign(&self, decision: &mut Decision, universe: &str) {
        decision.key.clone_from(&self.public);
        decision.signature = hex(self.pair.sign(decision.text(universe).as_bytes()).as_ref());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
