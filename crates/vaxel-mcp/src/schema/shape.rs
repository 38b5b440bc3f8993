//! What a schema can cost at most, found out before it is compiled.
//!
//! Keywords apply subschemas *in place* (to the same value) or to the *children* of the value. Along
//! references a small schema can unfold to a very large one; here it is unfolded, up to a limit, and
//! what is counted bounds the depth and the number of steps of every check.

use std::collections::{HashMap, HashSet};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{Unusable, dialect};

/// Most parts that a schema may unfold to.
const UNFOLDED: u64 = 50_000;
/// Most parts on one way through the unfolded schema.
const PATH: usize = 192;
/// Most subschemas in place, one below the other.
const CHAIN: usize = 48;

/// What a schema can cost.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Shape {
    /// Longest run of subschemas that apply to one value, one below the other.
    pub(super) chain: usize,
    /// Most that one value is compared with.
    pub(super) weight: u64,
    /// Most times that one child of a value is sent to subschemas.
    fan: u64,
    /// Parts in all, where a reference back is followed no further.
    unfolded: u64,
}

/// What applies to one value.
#[derive(Debug, Clone, Copy)]
struct Here {
    chain: usize,
    weight: u64,
    fan: u64,
}

/// The subschemas of one subschema.
#[derive(Default)]
struct Parts<'a> {
    in_place: Vec<Place<'a>>,
    children: Vec<Place<'a>>,
}

struct Walk<'a> {
    root: &'a Value,
    names: Names<'a>,
    path: Vec<&'a Value>,
    /// Subschemas whose [`Here`] is counted, by address.
    counted: HashSet<usize>,
    steps: u64,
    shape: Shape,
}

/// Places in the schema that have names of their own.
#[derive(Default)]
struct Names<'a> {
    /// By `$id`, or by anchor after a `#`; `None` where two have the same.
    places: HashMap<String, Option<&'a Value>>,
    /// Some name inside is more than a plain word, so that comparing texts does not tell what it names.
    is_odd: bool,
}

/// A subschema and the innermost resource (`$id`) that it stands in.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: &'a Value,
    resource: &'a Value,
}

impl Shape {
    /// Unfolds a schema.
    pub(super) fn of(schema: &Value) -> Result<Self, Unusable> {
        let mut names = Names::default();
        names.collect(schema, true);
        let mut walk = Walk {
            root: schema,
            names,
            path: Vec::new(),
            counted: HashSet::new(),
            steps: 0,
            shape: Self::default(),
        };
        let root = Place {
            node: schema,
            resource: schema,
        };
        walk.enter(root)?;
        Ok(walk.shape)
    }

    /// Steps of a check that remembers nothing: each level of nesting may multiply them.
    pub(super) fn naive(&self, nodes: u64, depth: usize) -> u64 {
        let depth = u32::try_from(depth.saturating_sub(1)).unwrap_or(u32::MAX);
        let visits = self.fan.max(1).saturating_pow(depth);
        nodes.saturating_mul(self.weight).saturating_mul(visits)
    }

    /// Steps of a check that remembers the outcome of references back, once it has made some 16 of
    /// them: each part looks at each value.
    pub(super) const fn remembering(&self, nodes: u64) -> u64 {
        let each = self.unfolded.saturating_mul(self.weight);
        nodes.saturating_mul(each).saturating_mul(16)
    }
}

impl<'a> Walk<'a> {
    /// A subschema that applies to a value of its own, which nothing was said about yet.
    fn enter(&mut self, place: Place<'a>) -> Result<(), Unusable> {
        if self.counted.insert(std::ptr::from_ref(place.node) as usize) {
            let here = self.here(place, 1)?;
            self.shape.chain = self.shape.chain.max(here.chain);
            self.shape.weight = self.shape.weight.max(here.weight);
            self.shape.fan = self.shape.fan.max(here.fan);
        }
        self.unfold(place)
    }

    /// Everything that applies to the same value as `place`.
    fn here(&mut self, place: Place<'a>, chain: usize) -> Result<Here, Unusable> {
        self.steps += 1;
        if self.steps > UNFOLDED * 4 {
            return Err(Unusable::TooMuch);
        }
        // What leads back without entering a child never ends, and is the longest chain there is.
        if chain > CHAIN {
            return Err(Unusable::Endless);
        }
        let Value::Object(keywords) = place.node else {
            return Ok(Here {
                chain,
                weight: 1,
                fan: 0,
            });
        };
        let mut here = Here {
            chain,
            weight: own_weight(keywords),
            fan: own_fan(keywords),
        };
        for part in self.parts(keywords, place)?.in_place {
            let below = self.here(part, chain + 1)?;
            here.chain = here.chain.max(below.chain);
            here.weight = here.weight.saturating_add(below.weight);
            here.fan = here.fan.saturating_add(below.fan);
        }
        // To know what is left over, everything in place is looked at once more.
        if keywords.keys().any(|key| key.starts_with("unevaluated")) {
            here.weight = here.weight.saturating_mul(2);
            here.fan = here.fan.saturating_mul(2);
        }
        Ok(here)
    }

    /// Counts the parts of the schema as a tree, in which a reference back is a leaf.
    fn unfold(&mut self, place: Place<'a>) -> Result<(), Unusable> {
        self.shape.unfolded += 1;
        let Value::Object(keywords) = place.node else {
            return Ok(());
        };
        if self.path.iter().any(|one| std::ptr::eq(*one, place.node)) {
            return Ok(());
        }
        if self.shape.unfolded > UNFOLDED || self.path.len() >= PATH {
            return Err(Unusable::TooMuch);
        }
        self.path.push(place.node);
        let parts = self.parts(keywords, place)?;
        for part in parts.in_place {
            self.unfold(part)?;
        }
        for part in parts.children {
            self.enter(part)?;
        }
        self.path.pop();
        Ok(())
    }

    fn parts(
        &self,
        keywords: &'a Map<String, Value>,
        place: Place<'a>,
    ) -> Result<Parts<'a>, Unusable> {
        // A part may be written in another dialect; all keywords of those that are known are seen here.
        dialect(place.node)?;
        let resource = match (keywords.get("$id"), keywords.get("$ref")) {
            // The dialects do not agree on what the reference starts from.
            (Some(Value::String(_)), Some(Value::String(text)))
                if !std::ptr::eq(place.node, self.root) =>
            {
                return Err(Unusable::Reference(text.chars().take(120).collect()));
            }
            (Some(Value::String(_)), _) => place.node,
            _ => place.resource,
        };
        let mut parts = Parts::default();
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("$ref" | "$dynamicRef", Value::String(text)) => {
                    parts.in_place.push(self.resolve(text, resource)?);
                }
                _ => parts.add(keyword, value, resource),
            }
        }
        Ok(parts)
    }

    /// What a reference means. What cannot be told by comparing texts is refused.
    fn resolve(&self, text: &str, resource: &'a Value) -> Result<Place<'a>, Unusable> {
        let nowhere = || Unusable::Reference(text.chars().take(120).collect());
        let (uri, fragment) = text.split_once('#').unwrap_or((text, ""));
        let resource = match uri {
            "" => resource,
            uri => self.names.find(uri).ok_or_else(nowhere)?,
        };
        if !fragment.is_empty() && !fragment.starts_with('/') {
            let named = self.names.find(&format!("#{fragment}"));
            let node = named.ok_or_else(nowhere)?;
            let resource = if self.names.has_one_resource() {
                self.root
            } else {
                node
            };
            return Ok(Place { node, resource });
        }
        let pointer = percent_decode_str(fragment).decode_utf8();
        let pointer = pointer.map_err(|_| nowhere())?;
        let mut place = Place {
            node: resource,
            resource,
        };
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            place.node = match place.node {
                Value::Object(members) => members.get(&token),
                Value::Array(items) => token.parse().ok().and_then(|at: usize| items.get(at)),
                _ => None,
            }
            .ok_or_else(nowhere)?;
            if matches!(place.node.get("$id"), Some(Value::String(_))) {
                place.resource = place.node;
            }
        }
        Ok(place)
    }
}

impl<'a> Names<'a> {
    /// Looks everywhere, also where no schema is: what is named twice is not told apart.
    fn collect(&mut self, value: &'a Value, is_root: bool) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.collect(item, false)),
            Value::Object(members) => {
                if let Some(Value::String(id)) = members.get("$id") {
                    self.is_odd |= !is_root && !is_word(id);
                    self.add(id.trim_end_matches('#').to_owned(), value);
                }
                for key in ["$anchor", "$dynamicAnchor"] {
                    if let Some(Value::String(name)) = members.get(key) {
                        self.add(format!("#{name}"), value);
                    }
                }
                members
                    .values()
                    .for_each(|member| self.collect(member, false));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn add(&mut self, name: String, place: &'a Value) {
        let entry = self.places.entry(name).or_insert(Some(place));
        if entry.is_some_and(|other| !std::ptr::eq(other, place)) {
            *entry = None;
        }
    }

    fn find(&self, name: &str) -> Option<&'a Value> {
        let found = *self.places.get(name)?;
        found.filter(|_| !self.is_odd)
    }

    fn has_one_resource(&self) -> bool {
        self.places
            .keys()
            .filter(|name| !name.starts_with('#'))
            .count()
            <= 1
    }
}

/// Such names mean the same wherever in a schema they stand.
fn is_word(id: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !id.is_empty() && id.bytes().all(letter)
}

impl<'a> Parts<'a> {
    /// The subschemas under a keyword.
    fn add(&mut self, keyword: &str, value: &'a Value, resource: &'a Value) {
        let place = |node| Place { node, resource };
        match keyword {
            "allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" => {
                self.in_place.extend(one_or_many(value).map(place));
            }
            "dependentSchemas" | "dependencies" => {
                // A list names properties.
                let each = value.as_object().into_iter().flat_map(Map::values);
                self.in_place
                    .extend(each.filter(|one| !one.is_array()).map(place));
            }
            "properties" | "patternProperties" => {
                let each = value.as_object().into_iter().flat_map(Map::values);
                self.children.extend(each.map(place));
            }
            "items"
            | "prefixItems"
            | "additionalItems"
            | "unevaluatedItems"
            | "contains"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "propertyNames" => self.children.extend(one_or_many(value).map(place)),
            _ => {}
        }
    }
}

fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    let (one, many) = match value {
        Value::Array(many) => (None, many.as_slice()),
        one => (Some(one), [].as_slice()),
    };
    one.into_iter().chain(many)
}

/// What the keywords of one subschema compare a value with.
fn own_weight(keywords: &Map<String, Value>) -> u64 {
    let lists = ["enum", "required", "properties", "patternProperties"];
    let lengths = lists.iter().map(|list| match keywords.get(*list) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(members)) => members.len(),
        _ => 0,
    });
    1 + lengths.sum::<usize>() as u64
}

/// How many times one child can be sent to a subschema.
fn own_fan(keywords: &Map<String, Value>) -> u64 {
    let any = |names: &[&str]| u64::from(names.iter().any(|name| keywords.contains_key(*name)));
    let patterns = keywords
        .get("patternProperties")
        .and_then(Value::as_object)
        .map_or(0, Map::len) as u64;
    let members = any(&[
        "properties",
        "additionalProperties",
        "unevaluatedProperties",
    ]) + patterns;
    let items = any(&[
        "items",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
    ]) + any(&["contains"]);
    members.max(items)
}
