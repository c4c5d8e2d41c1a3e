//! Mappings with known keys: one list of keys makes the struct, its reader and its JSON Schema. Used by `raw` only.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::node::{Body, Node};
use super::read::{At, Located, Reader};

/// One key: its name, the other spellings that are taken, and whether it must be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub required: bool,
}

impl Key {
    /// Whether it is written so.
    pub(crate) fn is(&self, given: &str) -> bool {
        self.name == given || self.aliases.contains(&given)
    }
}

/// A mapping with known keys.
pub(crate) trait Record: Default {
    /// Every key, those of a flattened part too.
    fn keys() -> Vec<Key>;
    /// Reads the value of a key, named as in `keys`.
    fn put(&mut self, key: &str, node: &Node, reader: &mut Reader);
    /// Takes over from `base` what is not given here.
    fn inherit(&mut self, base: &Self);
    /// Schemas of all keys, aliases too.
    fn properties(generator: &mut SchemaGenerator) -> Map<String, Value>;
}

/// Reads a mapping: unknown, repeated and missing keys are problems.
pub(crate) fn read<T: Record>(node: &Node, reader: &mut Reader) -> Option<T> {
    let Body::Map(entries) = &node.body else {
        return no_mapping(node, &T::keys(), reader);
    };
    let keys = T::keys();
    let mut record = T::default();
    let mut seen: Vec<(&str, &str, At)> = Vec::new();
    for (key, value) in entries {
        let Some(given) = key.text() else {
            reader.wrong::<()>(key, "a name as key");
            continue;
        };
        let at = reader.under_key(given, |reader| reader.at(key));
        let Some(known) = keys.iter().find(|known| known.is(given)) else {
            reader.push(unknown(given, &keys, &at));
            continue;
        };
        if let Some((_, first, before)) = seen.iter().find(|(name, ..)| *name == known.name) {
            reader.push(repeated(given, first, before, &at));
            continue;
        }
        seen.push((known.name, given, at));
        reader.under_key(given, |reader| record.put(known.name, value, reader));
    }
    for key in keys.iter().filter(|key| key.required) {
        if !seen.iter().any(|(name, ..)| *name == key.name) {
            let at = reader.at(node);
            reader.push(at.problem(format!("the key {:?} is missing", key.name)));
        }
    }
    Some(record)
}

/// What stands in the place of a mapping, with the keys that one would have.
fn no_mapping<T>(node: &Node, keys: &[Key], reader: &mut Reader) -> Option<T> {
    const MOST_NAMED: usize = 8;
    if matches!(node.body, Body::Null) {
        return reader.wrong(node, "a mapping");
    }
    let names: Vec<&str> = keys.iter().map(|key| key.name).take(MOST_NAMED).collect();
    let more = if keys.len() > MOST_NAMED { ", ..." } else { "" };
    let problem = reader
        .at(node)
        .problem(format!("wants a mapping, found {}", node.found()))
        .help(format!("its keys are {}{more}", names.join(", ")));
    reader.push(problem);
    None
}

fn unknown(given: &str, keys: &[Key], at: &At) -> super::report::Mistake {
    let names = keys
        .iter()
        .flat_map(|key| std::iter::once(&key.name).chain(key.aliases))
        .copied();
    let problem = at.problem(format!("unknown key {given:?}"));
    match nearest(given, names) {
        Some(near) => problem.help(format!("did you mean {near:?}?")),
        None => {
            let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
            problem.help(format!("known here: {}", names.join(", ")))
        }
    }
}

fn repeated(given: &str, first: &str, before: &At, at: &At) -> super::report::Mistake {
    let message = if given == first {
        "is given twice".to_owned()
    } else {
        format!("is another name of {first:?}, which is also given")
    };
    at.problem(message)
        .other(before.span.clone(), "first here")
        .help("keep one of the two")
}

/// The known word that a person most likely meant.
pub fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase().replace('-', "_");
    known
        .map(|word| {
            (
                strsim::damerau_levenshtein(&given, &word.replace('-', "_")),
                word,
            )
        })
        .filter(|(distance, word)| *distance <= (word.len().max(given.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The schema of one key, with its description.
pub(crate) fn described<T: schemars::JsonSchema>(
    generator: &mut SchemaGenerator,
    doc: &str,
) -> Value {
    let mut schema: Schema = generator.subschema_for::<Located<T>>();
    schema.insert("description".to_owned(), doc.trim().into());
    schema.to_value()
}

/// Declares a record. `required` after a key says that it must be there; `flatten part: Type;` at the end takes in
/// the keys of another record. Gives also `inherit`, which fills what is not given from another of the kind.
macro_rules! record {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $ty:ty => $key:literal $(| $alias:literal)* $(, $required:ident)?; )*
            $( flatten $part:ident: $part_ty:ty; )?
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name {
            $( $(#[doc = $doc])+ pub $field: Option<$crate::read::Located<$ty>>, )*
            $( pub $part: $part_ty, )?
        }

        impl $crate::record::Record for $name {
            fn keys() -> Vec<$crate::record::Key> {
                let keys = vec![$( $crate::record::Key {
                    name: $key,
                    aliases: &[$($alias),*],
                    required: $crate::record::is_required!($($required)?),
                } ),*];
                $( let keys = [keys, <$part_ty as $crate::record::Record>::keys()].concat(); )?
                keys
            }

            fn inherit(&mut self, base: &Self) {
                $( if self.$field.is_none() { self.$field.clone_from(&base.$field); } )*
                $( self.$part.inherit(&base.$part); )?
            }

            fn put(
                &mut self,
                key: &str,
                node: &$crate::node::Node,
                reader: &mut $crate::read::Reader,
            ) {
                match key {
                    $( $key => self.$field = $crate::read::FromNode::from_node(node, reader), )*
                    _ => { $( self.$part.put(key, node, reader); )? }
                }
            }

            fn properties(generator: &mut schemars::SchemaGenerator) -> serde_json::Map<String, serde_json::Value> {
                let mut map = serde_json::Map::new();
                $( {
                    let doc = concat!($($doc, "\n"),+);
                    let schema = $crate::record::described::<$ty>(generator, doc);
                    $( map.insert($alias.to_owned(), schema.clone()); )*
                    map.insert($key.to_owned(), schema);
                } )*
                $( map.extend(<$part_ty as $crate::record::Record>::properties(generator)); )?
                map
            }
        }

        impl $crate::read::FromNode for $name {
            fn from_node(
                node: &$crate::node::Node,
                reader: &mut $crate::read::Reader,
            ) -> Option<Self> {
                $crate::record::read(node, reader)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).trim_start_matches("Raw").into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::record::object::<Self>(generator, concat!($($about, "\n"),+))
            }
        }
    };
}

macro_rules! is_required {
    () => {
        false
    };
    (required) => {
        true
    };
}

/// The schema of a record: no other keys, and one spelling at least of each that is required.
pub(crate) fn object<T: Record>(generator: &mut SchemaGenerator, about: &str) -> Schema {
    let required: Vec<Value> = T::keys()
        .iter()
        .filter(|key| key.required)
        .map(|key| {
            let spellings = std::iter::once(&key.name).chain(key.aliases);
            let any: Vec<Value> = spellings
                .map(|name| serde_json::json!({"required": [name]}))
                .collect();
            serde_json::json!({"anyOf": any})
        })
        .collect();
    let mut schema = schemars::json_schema!({
        "type": "object",
        "description": about.trim(),
        "properties": T::properties(generator),
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema.insert("allOf".to_owned(), required.into());
    }
    schema
}

pub(crate) use {is_required, record};
