//! A service that is called by plain HTTP: its instances, and the tools that it takes calls of.
//!
//! A tool is called by `POST {base}/tools/{tool}`, with its arguments as the body. What routes such a
//! service gets will stand beside its tools.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An HTTP service with one or more instances that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HttpSource {
    /// Where it listens, 1 to 256.
    pub instances: Vec<HttpInstance>,
    /// How it is spoken to.
    #[serde(default)]
    pub scheme: Scheme,
    /// What stands before every path but `health_path`, such as `/api`; without a slash at its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "/api")]
    pub base_path: String,
    /// Answers 2xx to GET while an instance works. Without it, taking a connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/health")]
    pub health_path: Option<String>,
    /// Headers sent with every request; values are sealed on arrival.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What callers can call, at most 1000. Without any the service has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<HttpTool>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HttpInstance {
    /// Name or address.
    #[schema(example = "127.0.0.1")]
    pub host: String,
    /// TCP port.
    #[schema(minimum = 1)]
    pub port: u16,
    /// Its share of the calls beside that of the others, 1 to 1000.
    #[serde(default = "one")]
    #[schema(default = 1, minimum = 1, maximum = 1000)]
    pub weight: u16,
}

/// How an HTTP service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In clear.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// A tool of an HTTP service: its name alone, or what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum HttpTool {
    /// Takes any object.
    Name(String),
    /// Says what it takes.
    Declared(Box<ToolDeclaration>),
}

/// What is known of a tool, as MCP 2026-07-28 has it ("Tool").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolDeclaration {
    /// 1 to 128 of `A-Z a-z 0-9 _ - .`; the last part of its path.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// For models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of its arguments, whose `type` is `object`; any object when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub input_schema: Option<Value>,
    /// JSON Schema of its structured results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output_schema: Option<Value>,
    /// What MCP calls annotations: `readOnlyHint` and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub annotations: Option<Value>,
}

impl HttpSource {
    /// The base URL of an instance, without a slash at its end; `None` when there is no such instance.
    pub fn base_url(&self, instance: u16) -> Option<String> {
        let at = self.instances.get(usize::from(instance))?;
        Some(format!("{}://{at}{}", self.scheme, self.base_path))
    }

    /// Where an instance says whether it works: the URL of `health_path`, or of the instance itself.
    pub fn health_url(&self, instance: u16) -> Option<String> {
        let at = self.instances.get(usize::from(instance))?;
        let path = self.health_path.as_deref().unwrap_or("/");
        Some(format!("{}://{at}{path}", self.scheme))
    }
}

impl HttpTool {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Declared(declared) => &declared.name,
        }
    }

    /// Its definition, as an MCP 2026-07-28 server lists it.
    pub fn definition(&self) -> Value {
        let named = ToolDeclaration {
            name: self.name().to_owned(),
            ..ToolDeclaration::default()
        };
        let declared = match self {
            Self::Name(_) => &named,
            Self::Declared(declared) => declared,
        };
        let text = |text: &Option<String>| text.clone().map(Value::String);
        let open = || Value::from(Map::from_iter([("type".to_owned(), "object".into())]));
        let input = declared.input_schema.clone().unwrap_or_else(open);
        let members = [
            ("name", Some(declared.name.as_str().into())),
            ("title", text(&declared.title)),
            ("description", text(&declared.description)),
            ("inputSchema", Some(input)),
            ("outputSchema", declared.output_schema.clone()),
            ("annotations", declared.annotations.clone()),
        ];
        let given = members.into_iter();
        let given = given.filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(given.collect())
    }
}

/// Host and port as a URL has them: an IPv6 address in brackets.
impl fmt::Display for HttpInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.host.starts_with('[') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// The address of the first instance, and how many there are beside it.
impl fmt::Display for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base_url(0).unwrap_or_default())?;
        match self.instances.len() {
            0 | 1 => Ok(()),
            count => write!(f, " and {} more", count - 1),
        }
    }
}

const fn one() -> u16 {
    1
}
