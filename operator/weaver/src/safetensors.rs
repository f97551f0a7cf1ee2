//! Headers of safetensors files: names, types and shapes, without the weights.
//!
//! The format: <https://github.com/huggingface/safetensors#format>. A file is 8 bytes that tell the header's length
//! (little endian), the header as JSON, and the tensors' bytes one after the other, without gaps.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Error, Result};
use crate::units::MIB;

/// Longest header that is read, in bytes. A 7B model's shard needs some 30 KiB, an adapter's file 60 KiB.
pub const LONGEST_HEADER: u64 = 16 * MIB;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    F8,
    I64,
    I32,
    I16,
    I8,
}

impl Dtype {
    pub fn bytes(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F8 | Self::I8 => 1,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Self::F8,
            "I64" | "U64" => Self::I64,
            "I32" | "U32" => Self::I32,
            "I16" | "U16" => Self::I16,
            "I8" | "U8" | "BOOL" => Self::I8,
            _ => return None,
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F8 => "float8",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub bytes: u64,
}

/// The tensors of one file by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    pub tensors: BTreeMap<String, Tensor>,
}

impl Header {
    /// Reads the header at the beginning of a file of `file_bytes`, and nothing behind it. `place` names the file in
    /// errors.
    ///
    /// # Errors
    /// `Io`; `Header` for whatever breaks the format: lengths, types, shapes that do not fit their bytes, overlaps,
    /// gaps, a name twice.
    pub fn read(place: &str, file: &mut dyn Read, file_bytes: u64) -> Result<Self> {
        let broken = |problem: String| Error::Header { place: place.to_owned(), problem };
        let io = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => broken("the file ends within it".to_owned()),
            _ => Error::Io { place: place.to_owned(), problem: e.to_string() },
        };
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER {
            return Err(broken(format!("{length} bytes long, at most {LONGEST_HEADER} are read")));
        }
        let data = file_bytes
            .checked_sub(8 + length)
            .ok_or_else(|| broken(format!("{length} bytes long in a file of {file_bytes} bytes")))?;
        let mut text = vec![0; usize::try_from(length).map_err(|e| broken(e.to_string()))?];
        file.read_exact(&mut text).map_err(io)?;
        Self::parse(place, &text, data)
    }

    /// The header's JSON, in front of `data` bytes of tensors.
    fn parse(place: &str, text: &[u8], data: u64) -> Result<Self> {
        let broken = |problem: String| Error::Header { place: place.to_owned(), problem };
        let Entries(entries) = serde_json::from_slice(text).map_err(|e| broken(e.to_string()))?;
        let mut spans = Vec::with_capacity(entries.len());
        let mut tensors = BTreeMap::new();
        for (name, Entry { dtype, shape, data_offsets: [begin, end] }) in entries {
            let wrong = |problem: String| broken(format!("tensor {name:?}: {problem}"));
            let dtype = Dtype::parse(&dtype).ok_or_else(|| wrong(format!("the type {dtype:?} is not known")))?;
            let bytes = shape
                .iter()
                .try_fold(dtype.bytes(), |bytes, length| bytes.checked_mul(*length))
                .ok_or_else(|| wrong("its size overflows".to_owned()))?;
            if end.checked_sub(begin) != Some(bytes) {
                return Err(wrong(format!("{bytes} bytes by type and shape, but offsets {begin} to {end}")));
            }
            spans.push((begin, end));
            tensors.insert(name, Tensor { dtype, shape, bytes });
        }
        spans.sort_unstable();
        let mut at = 0;
        for (begin, end) in spans {
            if begin != at {
                return Err(broken(format!("a tensor begins at {begin}, the one before it ends at {at}")));
            }
            at = end;
        }
        if at != data {
            return Err(broken(format!("the tensors take {at} bytes, the file has {data} for them")));
        }
        Ok(Self { tensors })
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        // The parts are disjoint spans of one file, so the sum fits.
        self.tensors.values().map(|tensor| tensor.bytes).fold(0, u64::saturating_add)
    }
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header's map, in which a name may stand once only: two readers might else take different ones.
struct Entries(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Entries, M::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<BTreeMap<String, String>>()?;
                        continue;
                    }
                    let entry = map.next_value()?;
                    if entries.insert(name.clone(), entry).is_some() {
                        return Err(M::Error::custom(format!("tensor {name:?} stands in it twice")));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with these tensors, its data left out: its header and how long it claims to be.
    pub fn file(tensors: &[(&str, &str, &[u64])]) -> (Vec<u8>, u64) {
        let mut at = 0;
        let entries: Vec<String> = tensors
            .iter()
            .map(|(name, dtype, shape)| {
                let begin = at;
                at += Dtype::parse(dtype).unwrap().bytes() * shape.iter().product::<u64>();
                format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{at}]}}"#)
            })
            .collect();
        let json = format!("{{{}}}", entries.join(","));
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json.bytes());
        let bytes = file.len() as u64 + at;
        (file, bytes)
    }

    fn read(file: &[u8], bytes: u64) -> Result<Header> {
        Header::read("x.safetensors", &mut { file }, bytes)
    }

    fn raw(json: &str, data: u64) -> Result<Header> {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json.bytes());
        read(&file, file.len() as u64 + data)
    }

    #[test]
    fn a_header_is_read_without_its_tensors() {
        let (file, bytes) = file(&[("a", "BF16", &[4, 8]), ("b", "F32", &[2])]);
        let header = read(&file, bytes).unwrap();
        assert_eq!(header.bytes(), 4 * 8 * 2 + 2 * 4);
        assert_eq!(header.tensors["a"], Tensor { dtype: Dtype::Bf16, shape: vec![4, 8], bytes: 64 });
        assert!(raw(r#"{"__metadata__":{"format":"pt"}}"#, 0).unwrap().tensors.is_empty());
    }

    #[test]
    fn what_breaks_the_format_is_refused_with_its_place() {
        let tensor = |rest: &str| format!(r#"{{"t":{{"dtype":"F16",{rest}}}}}"#);
        for (json, data, words) in [
            (tensor(r#""shape":[2],"data_offsets":[0,4]"#), 5, "the file has 5"),
            (tensor(r#""shape":[2],"data_offsets":[0,5]"#), 5, "4 bytes by type and shape"),
            (tensor(r#""shape":[2],"data_offsets":[4,0]"#), 4, "offsets 4 to 0"),
            (tensor(r#""shape":[2],"data_offsets":[1,5]"#), 5, "begins at 1"),
            (tensor(r#""shape":[18446744073709551615,2],"data_offsets":[0,4]"#), 4, "overflows"),
            (tensor(r#""shape":[-1],"data_offsets":[0,4]"#), 4, "invalid value"),
            (r#"{"t":{"dtype":"F4","shape":[],"data_offsets":[0,0]}}"#.to_owned(), 0, "\"F4\" is not known"),
            (r#"{"t":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}"#.to_owned(), 0, "twice"),
            ("[]".to_owned(), 0, "map"),
            ("{".to_owned(), 0, "EOF"),
        ] {
            let error = raw(&json, data).unwrap_err().to_string();
            assert!(error.starts_with("x.safetensors: ") && error.contains(words), "{json}: {error}");
        }
        assert!(read(&u64::MAX.to_le_bytes(), 1 << 40).unwrap_err().to_string().contains("at most"));
        assert!(read(&100u64.to_le_bytes(), 50).unwrap_err().to_string().contains("in a file of 50 bytes"));
        assert!(read(&[1, 2], 2).unwrap_err().to_string().contains("ends within"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, claimed: u64) {
            let _ = read(&bytes, claimed);
            let _ = Header::parse("x", &bytes, claimed);
        }
    }
}
