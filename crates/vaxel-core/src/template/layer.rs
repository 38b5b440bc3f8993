//! Parts of a spec, laid over each other: objects key by key, everything else as a whole, `null` takes
//! away. Each value remembers who gave it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Origin;

/// A part of a spec. It says what it changes of whatever lies beneath, so parts can be put together
/// in any grouping.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layer {
    /// Takes away what is beneath.
    Gone(Origin),
    /// A value: a list, too, is one.
    Leaf(Leaf),
    /// Members.
    Branch {
        /// Whether it stands for itself, with nothing from beneath.
        is_whole: bool,
        /// By key.
        members: BTreeMap<String, Layer>,
    },
}

/// A value, with what has to be known about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    pub(super) value: Value,
    pub(super) from: Origin,
    /// Whether a secret parameter went into it.
    pub(super) is_secret: bool,
}

/// Where a value of the result stands, and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// Keys, from the outside in.
    pub(super) path: Vec<String>,
    pub(super) from: Origin,
    pub(super) is_secret: bool,
}

/// What is left when everything lies on everything.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Of every value.
    pub(super) places: Vec<Place>,
    /// Where something was taken away, and by whom.
    pub(super) gone: Vec<(Vec<String>, Origin)>,
}

impl Layer {
    /// Nothing is changed.
    pub(super) const NONE: Self = Self::Branch {
        is_whole: false,
        members: BTreeMap::new(),
    };

    /// A value as it stands.
    pub(super) fn plain(value: &Value, from: &Origin) -> Self {
        match value {
            Value::Null => Self::Gone(from.clone()),
            Value::Object(object) => Self::Branch {
                is_whole: false,
                members: object
                    .iter()
                    .map(|(key, value)| (key.clone(), Self::plain(value, from)))
                    .collect(),
            },
            _ => Self::Leaf(Leaf {
                value: value.clone(),
                from: from.clone(),
                is_secret: false,
            }),
        }
    }

    /// This part with `upper` over it.
    pub(super) fn under(self, upper: Self) -> Self {
        let Self::Branch {
            is_whole: false,
            members: above,
        } = upper
        else {
            return upper;
        };
        let Self::Branch {
            is_whole,
            mut members,
        } = self
        else {
            return Self::Branch {
                is_whole: true,
                members: above,
            };
        };
        for (key, upper) in above {
            let lower = members.remove(&key);
            let merged = match lower {
                Some(lower) => lower.under(upper),
                None => upper,
            };
            members.insert(key, merged);
        }
        Self::Branch { is_whole, members }
    }

    /// The whole as JSON, `None` when nothing is left of it; what is known about its values goes to
    /// `settled`.
    pub(super) fn settle(self, path: &mut Vec<String>, settled: &mut Settled) -> Option<Value> {
        match self {
            Self::Gone(by) => {
                settled.gone.push((path.clone(), by));
                None
            }
            Self::Leaf(Leaf {
                value,
                from,
                is_secret,
            }) => {
                settled.places.push(Place {
                    path: path.clone(),
                    from,
                    is_secret,
                });
                Some(value)
            }
            Self::Branch { members, .. } => {
                let mut object = Map::new();
                for (key, member) in members {
                    path.push(key.clone());
                    if let Some(value) = member.settle(path, settled) {
                        object.insert(key, value);
                    }
                    path.pop();
                }
                Some(Value::Object(object))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn layer(value: &Value, name: &str) -> Layer {
        let from = name.parse().map_or(Origin::Own, Origin::Template);
        Layer::plain(value, &from)
    }

    fn merged(lower: &Value, upper: &Value) -> Value {
        let merged = layer(lower, "a").under(layer(upper, "b"));
        merged
            .settle(&mut Vec::new(), &mut Settled::default())
            .unwrap()
    }

    #[test]
    fn objects_merge_by_key_and_everything_else_replaces() {
        let lower = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}});
        let upper = json!({"a": {"c": [3], "x": true}, "d": null, "e": "text"});
        assert_eq!(
            merged(&lower, &upper),
            json!({"a": {"b": 1, "c": [3], "x": true}, "e": "text"})
        );
        assert_eq!(
            merged(&json!({"a": 1}), &json!({"a": {"b": 2}})),
            json!({"a": {"b": 2}})
        );
        assert_eq!(merged(&json!({"a": {}}), &json!({})), json!({"a": {}}));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..3_i32).prop_map(Value::from),
            Just(json!(["x"])),
        ];
        leaf.prop_recursive(4, 32, 3, |inner| {
            proptest::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    fn objects() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-c]", values(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    /// Paths of all values that are no objects.
    fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        let Value::Object(object) = value else {
            return found.push(path.clone());
        };
        for (key, value) in object {
            path.push(key.clone());
            leaves(value, path, found);
            path.pop();
        }
    }

    proptest! {
        #[test]
        fn parts_can_be_put_together_in_any_grouping(a in objects(), b in objects(), c in objects(), d in objects()) {
            let [a, b, c, d] = [(a, "a"), (b, "b"), (c, "c"), (d, "d")].map(|(value, name)| layer(&value, name));
            let left = a.clone().under(b.clone()).under(c.clone()).under(d.clone());
            let right = a.clone().under(b.clone().under(c.clone().under(d.clone())));
            let middle = a.under(b.under(c)).under(d);
            prop_assert_eq!(&left, &right);
            prop_assert_eq!(left, middle);
        }

        #[test]
        fn every_value_of_the_result_has_an_origin_and_nothing_else_has(a in objects(), b in objects(), c in objects()) {
            let whole = layer(&a, "a").under(layer(&b, "b")).under(layer(&c, "c"));
            let mut settled = Settled::default();
            let value = whole.settle(&mut Vec::new(), &mut settled).unwrap();
            let mut expected = Vec::new();
            leaves(&value, &mut Vec::new(), &mut expected);
            let known: Vec<_> = settled.places.iter().map(|place| place.path.clone()).collect();
            expected.sort();
            let mut sorted = known;
            sorted.sort();
            prop_assert_eq!(sorted, expected);
            // The one named gave exactly this value there.
            for place in settled.places {
                let pointer = format!("/{}", place.path.join("/"));
                let giver = match place.from.to_string().as_str() {
                    "template:a" => &a,
                    "template:b" => &b,
                    _ => &c,
                };
                prop_assert_eq!(giver.pointer(&pointer), value.pointer(&pointer));
            }
            prop_assert!(!value.to_string().contains("null"));
        }

        #[test]
        fn nothing_over_a_part_leaves_it_as_it_is(a in objects()) {
            let part = layer(&a, "a");
            prop_assert_eq!(part.clone().under(Layer::NONE), part.clone());
            prop_assert_eq!(Layer::NONE.under(part.clone()), part);
        }
    }
}
