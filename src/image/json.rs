//! JSON from outside, read strictly: a key that stands twice in one object is an error.
//!
//! `serde_json` keeps the last of two equal keys, Go's decoder too, but case-insensitively, and other readers
//! keep the first: such a document means different images to different programs (CVE-2021-41190's family).
//! Everything that is named by a digest and comes from a registry or an archive goes through here first.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Parses one JSON document without duplicate keys.
///
/// Nesting is limited by `serde_json` (128 levels); the caller limits the size.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Returns the one text of a value: keys sorted, no white space.
///
/// Types with hash maps in them (all of `oci-spec`'s) must be written through this and not directly, or two
/// runs give two digests.
pub fn to_sorted_vec<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let value = serde_json::to_value(value).expect("documents have string keys only");
    serde_json::to_vec(&value).expect("a Value is always serialisable")
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::from(v))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict)?;
            if out.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key `{key}` stands twice")));
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        for (text, good) in [
            (r#"{"a":1,"b":[{"c":null,"d":-2.5}],"e":true}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"[{"x":{"a":1,"b":2,"a":3}}]"#, false),
            (r#"{"a":1,"\u0061":2}"#, false),
            (r#"{"a":1} x"#, false),
            ("", false),
        ] {
            let parsed = parse_strict(text.as_bytes());
            assert_eq!(parsed.is_ok(), good, "{text}");
            if good {
                assert_eq!(parsed.unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
            }
        }
        let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
        assert!(parse_strict(deep.as_bytes()).is_err(), "nesting is limited");
    }
}
