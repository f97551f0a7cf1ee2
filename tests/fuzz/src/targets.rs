//! What is fed, and with what it begins.

use std::{fs, path::Path};

use batos_covenant::{Command, Encoding, FullState, Reply, Subject, UvmStateUpdateEvent, Wire, decode, encode};
use batos_graph::{Block, ObjectId, Payload, Record, Slot, SlotKind, Value};
use batos_uvm::{
    image,
    syntax::{parse_expression, parse_method, print_code},
    vm::{Limits, Turn, check_method},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// Something that reads input from outside.
pub struct Target {
    pub name: &'static str,
    /// Inputs that are right.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input; answers what it came to, in words. It must not panic, and what it accepts must hold what is
    /// promised of it.
    pub feed: fn(&[u8]) -> String,
    /// Bytes of memory that an input of a certain length may cost.
    pub memory: fn(usize) -> usize,
}

/// A value's own size is larger than its bytes on the wire, and a vector doubles.
const FACTOR: usize = 512;

pub const TARGETS: &[Target] = &[
    Target { name: "syntax", seeds: programs, feed: syntax, memory: |length| (4 << 20) + length * 4 * FACTOR },
    Target { name: "covenant", seeds: messages, feed: covenant, memory: |length| (4 << 20) + length * FACTOR },
    Target { name: "record", seeds: records, feed: record, memory: |length| (4 << 20) + length * FACTOR },
    Target { name: "manifest", seeds: manifests, feed: manifest, memory: |length| (16 << 20) + length * 4 * FACTOR },
];

/// Files below a folder of the repository, with one of these endings.
fn files(folder: &str, ending: &str, found: &mut Vec<Vec<u8>>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.extend(fs::read(&path));
            }
        }
    }
}

fn programs() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for folder in ["operator/uvm/tests/scripts", "operator/uvm/image", "operator/uvm/bench"] {
        files(folder, "bt", &mut found);
    }
    found
}

fn manifests() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    files("manifests", "yaml", &mut found);
    found
}

fn kind(error: impl std::fmt::Display) -> String {
    // Names and numbers make no difference.
    let mut quoted = false;
    let text = error.to_string();
    let words = text.chars().filter(|c| {
        quoted ^= *c == '"';
        !quoted && !c.is_ascii_digit()
    });
    words.take(80).collect()
}

/// Parses, compiles, and prints canonically: the print must be read as the same.
fn syntax(input: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(input) else { return "no text".to_owned() };
    let _ = check_method(text);
    let _ = parse_method(text);
    let parsed = match parse_expression(text) {
        Ok(parsed) => parsed,
        Err(error) => return kind(error),
    };
    let printed = print_code(&parsed);
    let again = parse_expression(&printed).map(|again| print_code(&again));
    assert_eq!(again.as_ref().ok(), Some(&printed), "{text:?} is printed as {printed:?}, which is read as {again:?}");
    match Turn::eval(image::GENESIS, text, Limits { fuel: 1000, ..Limits::default() }, [0; 32]) {
        Ok(mut turn) => format!("{:?}", std::mem::discriminant(&turn.run(1000))),
        Err(error) => kind(error),
    }
}

fn messages() -> Vec<Vec<u8>> {
    let send = |arguments: Wire| json!({ "command": "send", "selector": "at:put:", "arguments": arguments });
    let state = json!({ "object": "3", "rev": 3, "state": { "a": 1.5 }, "parents": { "p": "4" }, "methods": { "m": "m = ( 1 )" } });
    let seeds = [
        send(json!([1, "two", { "$ref": "00000000000000000000000000000003" }, [null, 4.5, [[]]]])),
        json!({ "command": "get_full_state", "after": "1-2-3" }),
        json!({ "command": "update_property", "property_name": "n", "property_value": { "$int": "99999999999999999999" } }),
        json!({ "command": "create_method", "method_name": "m", "method_code": "m = ( ^1 )" }),
        json!({ "command": "list" }),
        json!({ "command": "apply", "generation": 3, "definition": { "parents": ["a"],
            "slots": [{ "name": "n", "value": 0 }, { "name": "m", "method": "m = ( 1 )", "constant": true }],
            "examples": [{ "given": { "n": 1 }, "send": { "selector": "m" }, "answers": 1, "leaves": {} }] } }),
        json!({ "status": "ok", "value": state, "rev": 3, "transcript": { "text": "x" } }),
        json!({ "status": "error", "error": { "kind": "ambiguous", "message": "m", "stack": ["a", "b"] } }),
        json!({ "object": "3", "state": { "n": 1 }, "rev": 2, "prev_rev": 1, "changed": ["n"] }),
        state.clone(),
    ];
    let packed = seeds.iter().flat_map(|seed| {
        [Encoding::Json, Encoding::MessagePack].into_iter().filter_map(|encoding| encode(seed, encoding).ok())
    });
    packed.chain([b"batos.v1.quickstart.cmd.account.send".to_vec()]).collect()
}

/// Reads; what is read must come through both encodings unchanged.
fn round<T: Serialize + DeserializeOwned>(input: &[u8]) -> Result<(), String> {
    let (value, _): (T, _) = decode(input).map_err(kind)?;
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let Ok(once) = encode(&value, encoding) else { continue };
        // JSON is known by its brace: what is no map is always read as MessagePack.
        if Encoding::of(&once) != encoding {
            continue;
        }
        // What is nested at the limit may be refused the second time, and JSON may be longer than the limit.
        let Ok((again, _)) = decode::<T>(&once) else { continue };
        let again = encode(&again, encoding).unwrap_or_default();
        assert_eq!(again, once, "{encoding:?}");
    }
    Ok(())
}

fn covenant(input: &[u8]) -> String {
    let _ = std::str::from_utf8(input).map(Subject::parse);
    let others =
        [round::<Reply>(input), round::<UvmStateUpdateEvent>(input), round::<FullState>(input), round::<Wire>(input)];
    let others = others.iter().filter(|read| read.is_ok()).count();
    format!("{others} {}", round::<Command>(input).err().unwrap_or_default())
}

fn records() -> Vec<Vec<u8>> {
    let slot = |name: &str, kind| Slot { name: name.to_owned(), kind };
    let id = ObjectId::of_name("other");
    let values = vec![
        Value::Nil,
        Value::Bool(true),
        Value::Int(-7),
        Value::BigInt("123456789012345678901234567890".to_owned()),
        Value::Float(1.5),
        Value::Str("text".to_owned()),
        Value::Symbol("at:put:".to_owned()),
        Value::Char('ß'),
        Value::Fraction("1".to_owned(), "3".to_owned()),
        Value::Ref(id),
    ];
    let block = Block {
        source: "[ :x | x + y ]".to_owned(),
        environment: vec![vec!["y".to_owned()]],
        is_kernel: false,
        me: Value::Ref(id),
        holder: Value::Nil,
        context: Value::Ref(id),
    };
    let slots = vec![
        slot("parent", SlotKind::Parent(Value::Ref(id))),
        slot("n", SlotKind::Assignable(Value::Int(3))),
        slot("c", SlotKind::Constant(Value::Str("x".to_owned()))),
        slot("m", SlotKind::Method("m = ( ^n )".to_owned())),
    ];
    let payloads = [
        Payload::None,
        Payload::Array(values.clone()),
        Payload::Table(values.iter().map(|value| (7, value.clone(), Value::Nil)).collect()),
        Payload::Block(Box::new(block)),
        Payload::Context { outer: Value::Nil, variables: values },
    ];
    let record = |payload| Record { name: Some("n".to_owned()), slots: slots.clone(), payload, ..Record::default() };
    payloads.into_iter().filter_map(|payload| record(payload).encode().ok()).collect()
}

fn record(input: &[u8]) -> String {
    let read = match Record::decode(input) {
        Ok(read) => read,
        Err(error) => return kind(error),
    };
    let Ok(bytes) = read.encode() else { return "too large".to_owned() };
    let again = Record::decode(&bytes).and_then(|again| again.encode());
    assert_eq!(again.ok().as_deref(), Some(bytes.as_slice()));
    format!("{:?}", std::mem::discriminant(&read.payload))
}

fn manifest(input: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(input) else { return "no text".to_owned() };
    match batos_crds::parse(text) {
        Ok(resources) => format!("{} resources", resources.len()),
        Err(error) => {
            // YAML's line breaks, each of which may stand for a line of its own.
            let lines = text.chars().filter(|c| "\n\r\u{85}\u{2028}\u{2029}".contains(*c)).count() + 1;
            assert!(error.line <= lines + 1, "line {} of {lines}", error.line);
            kind(error.message)
        }
    }
}
