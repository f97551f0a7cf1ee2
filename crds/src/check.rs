//! Rules between fields, checked while reading so that an error carries the place of what breaks it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// An element of a list that has rules of its own.
pub(crate) trait Check {
    /// What is wrong with it, in words.
    fn check(&self) -> Result<(), String>;
    /// Elements of one list differ in this.
    fn key(&self) -> &str;
}

/// Reads a list whose elements keep their rules.
pub(crate) fn checked<'de, D: Deserializer<'de>, T: Deserialize<'de> + Check>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(ListVisitor(PhantomData))
}

/// Reads a map that has rules of its own, or nothing.
pub(crate) fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de> + Check>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_option(OptionVisitor(PhantomData))
}

struct OptionVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Check> Visitor<'de> for OptionVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map or nothing")
    }

    fn visit_none<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        Element(&[]).deserialize(deserializer).map(Some)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Check> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut elements: Vec<T> = Vec::new();
        while let Some(element) = list.next_element_seed(Element(&elements))? {
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Reads one more element after those.
struct Element<'a, T>(&'a [T]);

impl<'de, T: Deserialize<'de> + Check> DeserializeSeed<'de> for Element<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        // Checked inside a map's visitor: there the reader adds that map's line to an error.
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de> + Check> Visitor<'de> for Element<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let element = T::deserialize(MapAccessDeserializer::new(map))?;
        element.check().map_err(A::Error::custom)?;
        match self.0.iter().any(|before| before.key() == element.key()) {
            true => Err(A::Error::custom(format!("{:?} is there twice", element.key()))),
            false => Ok(element),
        }
    }
}

/// Reads a name that fits a Kubernetes label, a DNS name and a token of a subject.
pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_string(NameVisitor)
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let legal = (1..=63).contains(&name.len()) && name.chars().all(inner);
        match legal && !name.starts_with('-') && !name.ends_with('-') {
            true => Ok(name.to_owned()),
            false => Err(E::custom(format!(
                "{:?} is no name: 1 to 63 of a to z, 0 to 9 and '-', which is not at an end",
                name.chars().take(63).collect::<String>()
            ))),
        }
    }
}

/// Reads a length of time: `90s`, `15m`, `12h`, `30d`, `forever`.
pub(crate) fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_string(AgeVisitor { or_forever: true })
}

/// Reads a length of time, or nothing.
pub(crate) fn optional_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    age(deserializer).map(Some)
}

/// Seconds of a length of time; `forever` is some centuries.
pub(crate) fn seconds(age: &str) -> Option<u64> {
    if age == "forever" {
        return Some(10_000_000_000);
    }
    let unit = match age.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    age.get(..age.len() - 1)?.parse::<u64>().ok()?.checked_mul(unit)
}

/// Reads a length of time that ends: `90s`, `15m`, `12h`, `30d`.
pub(crate) fn period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_string(AgeVisitor { or_forever: false }).map(Some)
}

struct AgeVisitor {
    or_forever: bool,
}

impl Visitor<'_> for AgeVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.or_forever {
            "a length of time: 90s, 15m, 12h, 30d or forever"
        } else {
            "90s, 15m, 12h or 30d"
        })
    }

    fn visit_str<E: Error>(self, age: &str) -> Result<String, E> {
        let legal = |count: &str| {
            (1..=5).contains(&count.len()) && !count.starts_with('0') && count.bytes().all(|b| b.is_ascii_digit())
        };
        match (self.or_forever && age == "forever") || age.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(legal) {
            true => Ok(age.to_owned()),
            false => Err(E::custom(format!(
                "{:?} is no length of time: write 90s, 15m, 12h, 30d (1 to 99999 of them){}",
                age.chars().take(63).collect::<String>(),
                if self.or_forever { " or forever" } else { "" }
            ))),
        }
    }
}
