//! MessagePack and JSON. The reply uses the encoding of the request.

use serde::{Serialize, de::DeserializeOwned};

/// Largest request that is read, in bytes (nats-server's default `max_payload`).
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Deepest nesting of arrays and maps that is read.
pub const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    MessagePack,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("payload of {size} bytes is larger than {MAX_PAYLOAD}")]
    TooLarge { size: usize },
    #[error("not a {encoding:?} request: {reason}")]
    Malformed { encoding: Encoding, reason: String },
    #[error("cannot encode: {0}")]
    Encode(String),
}

impl Encoding {
    /// Every request is a map, so a JSON one begins with `{`, which in MessagePack is the integer 123.
    pub fn of(payload: &[u8]) -> Self {
        match payload.iter().find(|b| !b.is_ascii_whitespace()) {
            Some(b'{') => Self::Json,
            _ => Self::MessagePack,
        }
    }
}

pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<(T, Encoding), CodecError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(CodecError::TooLarge { size: payload.len() });
    }
    let encoding = Encoding::of(payload);
    let malformed = |reason: String| CodecError::Malformed { encoding, reason };
    let value = match encoding {
        Encoding::Json => serde_json::from_slice(payload).map_err(|e| malformed(e.to_string()))?,
        Encoding::MessagePack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
            reader.set_max_depth(MAX_DEPTH);
            let value = T::deserialize(&mut reader).map_err(|e| malformed(e.to_string()))?;
            let read = payload.len() - reader.get_ref().len();
            if read != payload.len() {
                return Err(malformed(format!("{} bytes after the value", payload.len() - read)));
            }
            value
        }
    };
    Ok((value, encoding))
}

pub fn encode<T: Serialize>(value: &T, encoding: Encoding) -> Result<Vec<u8>, CodecError> {
    match encoding {
        Encoding::Json => serde_json::to_vec(value).map_err(|e| CodecError::Encode(e.to_string())),
        Encoding::MessagePack => rmp_serde::to_vec_named(value).map_err(|e| CodecError::Encode(e.to_string())),
    }
}
