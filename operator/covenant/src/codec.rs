//! MessagePack and JSON. The reply uses the encoding of the request.

use serde::{Serialize, de::DeserializeOwned};

use crate::skim::skim;

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
            skim(payload).map_err(malformed)?;
            let mut rest = payload;
            let mut reader = rmp_serde::Deserializer::new(&mut rest);
            reader.set_max_depth(MAX_DEPTH);
            let value = T::deserialize(&mut reader).map_err(|e| malformed(e.to_string()))?;
            if !rest.is_empty() {
                return Err(malformed(format!("{} bytes after the value", rest.len())));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Command, Wire};

    fn command(arguments: Wire) -> Wire {
        json!({ "command": "send", "selector": "deposit:", "arguments": arguments })
    }

    #[test]
    fn both_encodings_carry_the_same() {
        let wanted: Command = serde_json::from_value(command(json!([1, "two", { "$ref": "3" }, [null, 4.5]]))).unwrap();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let bytes = encode(&wanted, encoding).unwrap();
            assert_eq!(decode::<Command>(&bytes).unwrap(), (wanted.clone(), encoding));
        }
    }

    #[test]
    fn what_is_no_request_is_refused_in_words() {
        let good = encode(&command(json!([])), Encoding::MessagePack).unwrap();
        let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
        let cases: &[(&str, Vec<u8>, &str)] = &[
            ("cut off", good[..good.len() - 1].to_vec(), "MessagePack"),
            ("two values", [good.as_slice(), &[0]].concat(), "1 bytes after the value"),
            ("too deep", encode(&command(json!([deep])), Encoding::MessagePack).unwrap(), "depth"),
            ("unknown command", br#"{"command": "fly"}"#.to_vec(), "fly"),
            ("too large", vec![b'{'; MAX_PAYLOAD + 1], "larger than"),
        ];
        for (case, payload, wanted) in cases {
            let error = decode::<Command>(payload).unwrap_err().to_string();
            assert!(error.contains(wanted), "{case}: {error}");
        }
    }

    #[test]
    fn random_bytes_are_decoded_or_refused() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            // Marsaglia's xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bytes = state.to_le_bytes();
            let _ = decode::<Wire>(&bytes);
            let _ = decode::<Command>(&[[0x81].as_slice(), &bytes].concat());
        }
    }
}
