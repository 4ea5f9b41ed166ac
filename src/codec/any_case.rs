//! Documents as Go reads them: names of members in any letter case, and null for whatever is empty.
//!
//! Go's `encoding/json` takes a member for a field if the names differ only in the case of letters, and leaves a field alone
//! that is null. Here both hold for every struct but those that are named as exact; maps keep their keys. Errors keep the
//! line and column that the format's own deserializer gives them.

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

/// Reads a value. The structs named in `exact`, and all that is within them, are read as serde reads them.
pub fn deserialize<'de, T, D>(deserializer: D, exact: &'static [&'static str]) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(Lenient { inner: deserializer, exact })
}

/// Wraps deserializers, visitors, seeds and accesses alike: what comes out of a wrapped one is wrapped again.
#[derive(Clone, Copy)]
struct Lenient<T> {
    inner: T,
    exact: &'static [&'static str],
}

impl<T> Lenient<T> {
    fn also<U>(&self, inner: U) -> Lenient<U> {
        Lenient { inner, exact: self.exact }
    }
}

/// Methods that only pass on.
macro_rules! forward {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.also(visitor);
            self.inner.$method(visitor)
        }
    )*};
}

/// Methods for which null is an empty value.
macro_rules! forward_or_empty {
    ($($method:ident $empty:expr,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            struct Inner<V>(V);
            impl<'de, V: Visitor<'de>> Visitor<'de> for Lenient<Inner<V>> {
                type Value = V::Value;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    self.inner.0.expecting(f)
                }
                fn visit_none<E: Error>(self) -> Result<V::Value, E> {
                    let empty: fn(V) -> Result<V::Value, E> = $empty;
                    empty(self.inner.0)
                }
                fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
                    self.visit_none()
                }
                fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
                    let Self { inner: Inner(visitor), exact } = self;
                    deserializer.$method(Lenient { inner: visitor, exact })
                }
            }
            let visitor = self.also(Inner(visitor));
            self.inner.deserialize_option(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<D> {
    type Error = D::Error;

    forward! {
        deserialize_any deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit
        deserialize_identifier deserialize_ignored_any
    }

    forward_or_empty! {
        deserialize_bool |visitor| visitor.visit_bool(false),
        deserialize_str |visitor| visitor.visit_str(""),
        deserialize_string |visitor| visitor.visit_str(""),
        deserialize_seq |visitor| visitor.visit_seq(SeqDeserializer::<_, E>::new(std::iter::empty::<()>())),
        deserialize_map |visitor| visitor.visit_map(MapDeserializer::<_, E>::new(std::iter::empty::<((), ())>())),
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        if self.exact.contains(&name) {
            return self.inner.deserialize_struct(name, fields, visitor);
        }
        let visitor = self.also(Fields { visitor, fields });
        self.inner.deserialize_option(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.also(visitor);
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.also(visitor);
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.also(visitor);
        self.inner.deserialize_tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.also(visitor);
        self.inner.deserialize_tuple_struct(name, length, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.also(visitor);
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident $value:ty,)*) => {$(
        fn $method<E: Error>(self, value: $value) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Lenient<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool bool, visit_i64 i64, visit_i128 i128, visit_u64 u64, visit_u128 u128, visit_f64 f64, visit_char char,
        visit_str &str, visit_borrowed_str &'de str, visit_string String,
        visit_bytes &[u8], visit_borrowed_bytes &'de [u8], visit_byte_buf Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.also(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.also(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        let items = self.also(items);
        self.inner.visit_seq(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        let members = self.also(members);
        self.inner.visit_map(members)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(variant)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Lenient<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.also(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The members of a map: their keys are data.
impl<'de, A: MapAccess<'de>> MapAccess<'de> for Lenient<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.also(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Lenient<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.also(deserializer);
        self.inner.deserialize(deserializer)
    }
}

/// The visitor of a struct.
struct Fields<V> {
    visitor: V,
    fields: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Lenient<Fields<V>> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.visitor.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visitor.visit_map(MapDeserializer::<_, E>::new(std::iter::empty::<((), ())>()))
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        // The name matters to no format that is read here.
        deserializer.deserialize_struct("", self.inner.fields, self)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        let Self { inner: Fields { visitor, fields }, exact } = self;
        visitor.visit_map(Members { members: Lenient { inner: members, exact }, fields })
    }
}

/// The members of a struct.
struct Members<A> {
    members: Lenient<A>,
    fields: &'static [&'static str],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.members.inner.next_key_seed(Name { seed, fields: self.fields })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.members.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.members.size_hint()
    }
}

/// The name of one member of a struct.
struct Name<S> {
    seed: S,
    fields: &'static [&'static str],
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Name<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Name<S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<S::Value, E> {
        let same = |field: &&&str| field.eq_ignore_ascii_case(name);
        let known = if self.fields.contains(&name) { None } else { self.fields.iter().find(same) };
        self.seed.deserialize(StrDeserializer::new(known.copied().unwrap_or(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Outer {
        user_name: String,
        yes: bool,
        items: Vec<Item>,
        by_key: BTreeMap<String, Vec<Item>>,
        maybe: Option<Item>,
        exact: Option<Exact>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Item {
        #[serde(rename = "ID", alias = "Ident")]
        id: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Exact {
        field: String,
    }

    fn item(id: &str) -> Item {
        Item { id: id.to_owned() }
    }

    fn both(text: &str) -> [Result<Outer, String>; 2] {
        let mut json = serde_json::Deserializer::from_str(text);
        let json = deserialize(&mut json, &["Exact"]).map_err(|error| error.to_string());
        let yaml = serde_json::from_str::<serde_json::Value>(text).unwrap();
        let yaml = serde_saphyr::to_string(&yaml).unwrap();
        let yaml = serde_saphyr::with_deserializer_from_str(&yaml, |yaml| deserialize(yaml, &["Exact"]));
        [json, yaml.map_err(|error| error.to_string())]
    }

    #[test]
    fn names_of_members_are_found_in_any_case_and_keys_stay() {
        let text = json!({
            "USERname": "u", "YES": true, "Items": [{"id": "1"}, {"IDENT": "2"}], "unknown": {"a": [1]},
            "bykey": {"MixedKey": [{"Id": "3"}]}, "MAYBE": {"ID": "4"}, "exact": {"field": "f"},
        });
        for read in both(&text.to_string()) {
            let read = read.unwrap();
            assert_eq!((read.user_name.as_str(), read.yes), ("u", true));
            assert_eq!(read.items, [item("1"), item("2")]);
            assert_eq!(read.by_key["MixedKey"], [item("3")]);
            assert_eq!(read.maybe, Some(item("4")));
        }
    }

    #[test]
    fn null_is_what_is_empty() {
        let text = json!({
            "userName": null, "yes": null, "items": null, "byKey": null, "maybe": null, "exact": null,
        });
        for text in [text.to_string(), "null".to_owned()] {
            for read in both(&text) {
                assert_eq!(read.unwrap(), Outer::default(), "{text}");
            }
        }
        for read in both(&json!({"byKey": {"a": null}}).to_string()) {
            assert_eq!(read.unwrap().by_key["a"], []);
        }
    }

    #[test]
    fn exact_structs_are_exact() {
        for exact in [json!({"Field": "f"}), json!({"field": null}), json!({"field": "f", "more": 1})] {
            for read in both(&json!({ "exact": exact }).to_string()) {
                read.unwrap_err();
            }
        }
    }

    #[test]
    fn errors_have_their_place() {
        let [json, yaml] = both("{\n \"items\": [{\"ID\": [\"1\"]}]}");
        assert!(json.unwrap_err().contains("line 2"));
        assert!(yaml.unwrap_err().contains("line "));
        let [json, _] = both("{\"items\": [\n{}]}");
        let error = json.unwrap_err();
        assert!(error.contains("ID") && error.contains("line 2"), "{error}");
    }
}
