//! JSON of others that everybody reads in the same way. Where an object has a name twice one reader takes the
//! first value and another one the last (RFC 8259 §4), so that what was judged would not be what is done.

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Reads JSON in which no object has a name twice.
///
/// # Errors
/// It is no JSON, holds a number that is none, or an object with a name twice.
pub fn read(text: &str) -> Result<Value, serde_json::Error> {
    whole(text, Names::AsWritten)
}

/// The same where names that differ in nothing but the case of letters count as one, too: some servers read them
/// so.
///
/// # Errors
/// Those of [`read`].
pub fn read_in_any_case(text: &str) -> Result<Value, serde_json::Error> {
    whole(text, Names::InAnyCase)
}

/// When two names are the same.
#[derive(Clone, Copy)]
enum Names {
    AsWritten,
    InAnyCase,
}

fn whole(text: &str, names: Names) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = names.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

impl Names {
    /// The same text for names that are the same.
    fn key(self, name: &str) -> String {
        match self {
            Self::AsWritten => name.to_owned(),
            // Some letters have two small forms, and one large one.
            Self::InAnyCase => name.to_uppercase().to_lowercase(),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Names {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map(Value::Number);
        number.ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let (mut object, mut known) = (Map::new(), HashSet::new());
        while let Some(name) = members.next_key::<String>()? {
            if !known.insert(self.key(&name)) {
                let name: String = name.chars().take(60).collect();
                let detail = format!("`{name}` stands twice in one object");
                return Err(A::Error::custom(detail));
            }
            object.insert(name, members.next_value_seed(self)?);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_refused_wherever_it_stands() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"[{"deep":[{"a":1,"b":{},"a":null}]}]"#,
        ] {
            assert!(read(text).is_err(), "{text}");
            assert!(read_in_any_case(text).is_err(), "{text}");
        }
        for text in [
            r#"{"path":1,"PATH":2}"#,
            r#"{"k":1,"\u212a":2}"#,
            r#"{"s":1,"\u017f":2}"#,
        ] {
            assert!(read(text).is_ok(), "{text}");
            assert!(read_in_any_case(text).is_err(), "{text}");
        }
        assert!(read("{\"a\":1} {").is_err());
        assert!(read("1e999").is_err());
        assert!(read(&"[".repeat(10_000)).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| json!(number)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("[a-e]{1,2}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_else_is_read_as_everybody_reads_it(value in any_json()) {
            let text = value.to_string();
            let usual: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read(&text).unwrap(), usual.clone());
            prop_assert_eq!(read_in_any_case(&text).unwrap(), usual);
        }
    }
}
