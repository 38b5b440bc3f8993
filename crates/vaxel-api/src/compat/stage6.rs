//! The form of a service in "Stage 6: Dynamic Service Registration": flat, with its configuration in five
//! categories. It is read and answered at the same paths as the canonical one.

use serde_json::{Map, Value, json};
use vaxel_control::{Change, Observed, OfferKind, ServiceRef};
use vaxel_core::{
    bundle::WantedService,
    failure::{Failure, Issue},
    lifecycle::Lifecycle,
    name::ServiceName,
    principal::Principal,
    service::Source,
    template::DerivedDraft,
};

use crate::context::Context;

/// Where each setting of a category stands in the canonical form.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("runtime", "command", "/spec/source/process/command"),
    ("runtime", "args", "/spec/source/process/args"),
    ("runtime", "env", "/spec/source/process/env"),
    ("runtime", "builtin", "/spec/source/builtin"),
    ("runtime", "cwd", "/spec/source/process/cwd"),
    ("runtime", "balance", "/spec/balance"),
    ("runtime", "idle_timeout", "/spec/idle_timeout"),
    ("runtime", "replicas", "/spec/replicas"),
    ("runtime", "era", "/spec/era"),
    ("runtime", "timeout", "/spec/limits/timeout"),
    ("runtime", "concurrency", "/spec/limits/concurrency"),
    ("runtime", "memory", "/spec/limits/memory"),
    ("runtime", "processes", "/spec/limits/processes"),
    ("runtime", "open_files", "/spec/limits/open_files"),
    ("network", "url", "/spec/source/mcp/url"),
    ("network", "http", "/spec/source/http"),
    ("network", "headers", "/spec/source/mcp/headers"),
    ("network", "session", "/spec/source/mcp/session"),
    ("security", "allow_tools", "/spec/tools/allow"),
    ("security", "deny_tools", "/spec/tools/deny"),
    ("security", "validate", "/spec/validate"),
    ("security", "identity", "/spec/identity"),
    ("integration", "depends_on", "/spec/depends_on"),
    ("integration", "extends", "/spec/extends"),
    ("monitoring", "health", "/spec/health"),
    ("monitoring", "lease", "/spec/lease"),
];
const CATEGORIES: [&str; 5] = [
    "runtime",
    "network",
    "security",
    "integration",
    "monitoring",
];
/// What a service has beside its configuration. Those without a place are Vaxel's to say.
const FIELDS: &[(&str, Option<&str>)] = &[
    ("name", Some("/name")),
    ("service_name", None),
    ("tags", Some("/tags")),
    ("environment", Some("/environment")),
    ("description", Some("/spec/description")),
    ("extends", Some("/extends")),
    ("id", None),
    ("type", None),
    ("hosting_mode", None),
    ("status", None),
    ("config", None),
    ("service_id", None),
    ("script_id", None),
    ("tools", None),
    ("routes", None),
    ("created_at", None),
    ("updated_at", None),
];

/// Whether a body is in this form.
pub(crate) fn is_one(body: &Value) -> bool {
    body.get("hosting_mode").is_some() && body.get("spec").is_none()
}

/// The change that makes the service in a body of this form.
///
/// # Errors
/// Every problem, at the place where this form has it.
pub(crate) fn create(body: &Value) -> Result<Change, Failure> {
    let (draft, issues) = canonical(body);
    let read = Change::create(&draft).map_err(|failure| failure.issues);
    whole(read, issues).map_err(invalid)
}

/// The change that makes a service what a body of this form says.
///
/// # Errors
/// Every problem, at the place where this form has it.
pub(crate) fn update(
    service: ServiceRef,
    body: &Value,
    expected: Option<u64>,
) -> Result<Change, Failure> {
    let (draft, issues) = canonical(body);
    let read = Change::update(service, &draft, expected).map_err(|failure| failure.issues);
    whole(read, issues).map_err(invalid)
}

/// The same service as one of many that are to be there.
pub(crate) fn wanted(body: &Value) -> Result<WantedService, Vec<Issue>> {
    let (draft, issues) = canonical(body);
    whole(WantedService::from_json(&draft), issues)
}

fn whole<T>(read: Result<T, Vec<Issue>>, mut issues: Vec<Issue>) -> Result<T, Vec<Issue>> {
    match read {
        Ok(read) if issues.is_empty() => return Ok(read),
        Ok(_) => {}
        Err(found) => issues.extend(found.iter().map(at_its_place)),
    }
    Err(issues)
}

fn invalid(issues: Vec<Issue>) -> Failure {
    Failure::invalid("The service", issues)
}

/// What a body says in the canonical form, and what of it has no place there.
fn canonical(body: &Value) -> (Value, Vec<Issue>) {
    let mut issues = Vec::new();
    check_kind(body, &mut issues);
    let mut draft = json!({ "spec": { "source": {} } });
    for (name, value) in body.as_object().into_iter().flatten() {
        match FIELDS.iter().find(|(field, _)| field == name) {
            Some((_, Some(place))) => put(&mut draft, place, value),
            Some((_, None)) => {}
            None => issues.push(Issue::new(name, "is not known")),
        }
    }
    read_config(body, &mut draft, &mut issues);
    if body["status"] == "inactive" {
        put(&mut draft, "/enabled", &json!(false));
    }
    // What Vaxel has written says both: the name for people, and the service's own.
    let name = match &body["service_name"] {
        Value::String(name) => {
            put(&mut draft, "/name", &json!(name));
            name.parse().ok()
        }
        _ => body["name"].as_str().and_then(ServiceName::closest),
    };
    if let Some(name) = name.filter(|name| body["name"] != *name.as_str()) {
        put(&mut draft, "/spec/title", &body["name"]);
        put(&mut draft, "/name", &json!(name));
    }
    extend(&mut draft);
    (draft, issues)
}

/// A template stands beside the spec, wherever it was named; what Vaxel showed of a service that was made
/// of one stands in it. The source of the template is not to be taken away by an empty one.
fn extend(draft: &mut Value) {
    let within = &draft["spec"]["extends"];
    let is_wanted = within.is_string()
        || within.as_object().is_some_and(|one| {
            let known = ["template", "with"];
            !one.is_empty() && one.keys().all(|key| known.contains(&key.as_str()))
        });
    if let Some(spec) = draft["spec"].as_object_mut().filter(|_| is_wanted)
        && let Some(extends) = spec.remove("extends")
    {
        draft["extends"] = extends;
    }
    if DerivedDraft::is_one(draft)
        && let Some(spec) = draft["spec"].as_object_mut()
        && spec.get("source").is_some_and(is_empty)
    {
        spec.remove("source");
    }
}

fn check_kind(body: &Value, issues: &mut Vec<Issue>) {
    let (kind, hosting) = (body["type"].as_str(), body["hosting_mode"].as_str());
    match kind {
        Some("executable") => {}
        Some("function") => issues.push(Issue::new(
            "type",
            "`function` needs the source `script`, which comes with a later version; write \
             `executable` and give the command",
        )),
        _ => issues.push(Issue::new("type", "must be `executable` or `function`")),
    }
    if !matches!(hosting, Some("stdio" | "sse")) {
        issues.push(Issue::new("hosting_mode", "must be `stdio` or `sse`"));
    }
}

fn read_config(body: &Value, draft: &mut Value, issues: &mut Vec<Issue>) {
    let categories = body.get("config").and_then(Value::as_object);
    for (category, settings) in categories.into_iter().flatten() {
        if !CATEGORIES.contains(&category.as_str()) {
            let known = CATEGORIES.join(", ");
            let message = format!("is no category; there are {known}");
            issues.push(Issue::new(format!("config.{category}"), message));
            continue;
        }
        for (setting, value) in settings.as_object().into_iter().flatten() {
            let mut all = SETTINGS.iter();
            match all.find(|(of, name, _)| of == category && name == setting) {
                Some((_, _, place)) => put(draft, place, value),
                None => issues.push(Issue::new(
                    format!("config.{category}.{setting}"),
                    "is not known",
                )),
            }
        }
    }
}

/// A problem of the canonical form, named as this form has it.
fn at_its_place(issue: &Issue) -> Issue {
    let pointer = format!("/{}", issue.path.replace('.', "/"));
    let setting = SETTINGS
        .iter()
        .find(|(_, _, place)| pointer.starts_with(place));
    let path = match setting {
        Some((category, name, place)) => {
            let rest = pointer[place.len()..].replace('/', ".");
            format!("config.{category}.{name}{rest}")
        }
        None if pointer.starts_with("/spec/source") => "config".to_owned(),
        None => issue.path.trim_start_matches("spec.").to_owned(),
    };
    Issue::new(path, issue.message.clone())
}

/// A service in this form.
pub(crate) async fn shown(
    context: &Context,
    caller: &Principal,
    service: &Observed,
) -> Result<Value, Failure> {
    let id = ServiceRef::Id(service.resource.id);
    if service.resource.deleted_at.is_some() {
        return Ok(view(service, &[]));
    }
    let offers = context
        .control
        .offers(caller, &id, OfferKind::Tools)
        .await?;
    let tools: Vec<&str> = offers.items.iter().map(|tool| &*tool.own).collect();
    Ok(view(service, &tools))
}

fn view(observed: &Observed, tools: &[&str]) -> Value {
    let resource = &observed.resource;
    let whole = json!({ "spec": resource.spec });
    let mut config: Map<String, Value> = CATEGORIES
        .iter()
        .map(|category| ((*category).to_owned(), json!({})))
        .collect();
    for (category, setting, place) in SETTINGS {
        let value = whole.pointer(place).filter(|value| !is_empty(value));
        if let (Some(value), Some(settings)) = (value, config[*category].as_object_mut()) {
            settings.insert((*setting).to_owned(), value.clone());
        }
    }
    let hosting = match resource.spec.source {
        Source::Process(_) | Source::Builtin(_) => "stdio",
        Source::Mcp(_) | Source::Http(_) => "sse",
    };
    let status = match observed.status.lifecycle {
        Lifecycle::Error => "error",
        _ if resource.enabled => "active",
        _ => "inactive",
    };
    let title = resource.spec.title.as_deref();
    json!({
        "id": resource.id, "service_id": resource.id, "service_name": resource.name,
        "name": title.unwrap_or_else(|| resource.name.as_str()),
        "description": resource.spec.description, "type": "executable", "hosting_mode": hosting,
        "script_id": null, "tools": tools, "routes": [format!("/mcp/{}", resource.name)],
        "status": status, "created_at": resource.created_at, "updated_at": resource.updated_at,
        "tags": resource.tags, "environment": resource.environment, "config": config,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        // An empty list of tools lets none through; without a list all pass.
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Writes `value` at a place, making the objects on the way.
fn put(draft: &mut Value, place: &str, value: &Value) {
    let mut here = draft;
    for key in place.split('/').skip(1) {
        if !here.is_object() {
            *here = json!({});
        }
        here = &mut here[key];
    }
    *here = value.clone();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_one_of_the_canonical_form() {
        for (category, setting, place) in SETTINGS {
            assert!(CATEGORIES.contains(category));
            let mut body = json!({
                "name": "x", "type": "executable", "hosting_mode": "stdio",
                "config": { "runtime": { "command": "true" } }
            });
            if *category == "network" {
                body["config"] = json!({ "network": { "url": "http://127.0.0.1:1/mcp" } });
            }
            // Nothing takes a list of null, so that each is refused, at its place.
            body["config"][category][setting] = json!([null]);
            let refused = create(&body).unwrap_err();
            let at = format!("config.{category}.{setting}");
            let named = refused.issues.iter().any(|one| one.path.starts_with(&at));
            assert!(named, "{place}: {:?}", refused.issues);
        }
    }

    #[test]
    fn everything_that_a_spec_can_say_has_its_place() {
        let document: Value = serde_json::from_str(&crate::Api::openapi()).unwrap();
        let spec = document.pointer("/components/schemas/ServiceSpec/properties");
        let spec = spec.unwrap();
        for (key, _) in spec.as_object().unwrap() {
            let place = format!("/spec/{key}");
            let has_place = |at: &str| at == place || at.starts_with(&format!("{place}/"));
            let known = SETTINGS.iter().any(|(_, _, at)| has_place(at))
                || FIELDS.iter().any(|(_, at)| at.is_some_and(has_place));
            assert!(known || key == "title", "`{key}` would be lost");
        }
    }

    #[test]
    fn all_problems_are_named_in_the_words_of_this_form() {
        let body = json!({
            "name": "x", "type": "function", "hosting_mode": "carrier pigeon", "colour": "red",
            "config": { "runtime": { "replicas": 0, "speed": 3 }, "taste": {} }
        });
        let refused = create(&body).unwrap_err();
        let paths: Vec<&str> = refused.issues.iter().map(|one| one.path.as_str()).collect();
        for path in [
            "type",
            "hosting_mode",
            "colour",
            "config.runtime.replicas",
            "config.runtime.speed",
            "config.taste",
        ] {
            assert!(paths.contains(&path), "{path}: {paths:?}");
        }
        let later = refused
            .issues
            .iter()
            .find(|one| one.path == "type")
            .unwrap();
        assert!(later.message.contains("`script`"), "{}", later.message);
    }
}
