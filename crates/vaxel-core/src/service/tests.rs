use serde_json::json;

use super::*;

fn problems(value: &Value) -> Vec<String> {
    let issues = ServiceDraft::from_json(value).err().unwrap_or_default();
    issues
        .into_iter()
        .map(|issue| format!("{}: {}", issue.path, issue.message))
        .collect()
}

#[test]
fn a_minimal_draft_is_accepted_and_round_trips() {
    let value =
        json!({"name": "time", "spec": {"source": {"process": {"command": "mcp-server-time"}}}});
    let draft = ServiceDraft::from_json(&value).unwrap();
    assert_eq!(draft.spec.replicas, 1);
    assert!(draft.enabled && draft.spec.runs_on_host());
    let again = serde_json::to_value(&draft).unwrap();
    assert_eq!(ServiceDraft::from_json(&again).unwrap(), draft);
    assert_eq!(
        serde_json::from_value::<ServiceDraft>(again).unwrap(),
        draft
    );
}

#[test]
fn five_mistakes_are_five_problems_with_their_paths() {
    let value = json!({
        "name": "Bad Name",
        "colour": "red",
        "spec": {
            "source": {"mcp": {"url": "ftp://x", "headers": {"Host": "a"}}},
            "replicas": 0,
            "limits": {"timeout": "soon"},
        }
    });
    let problems = problems(&value);
    let starts = [
        "name:",
        "spec.source.mcp.headers.Host:",
        "spec.source.mcp.url:",
        "spec.replicas:",
        "spec.limits.timeout:",
        "colour:",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(
            problem.starts_with(start),
            "{problem} does not start with {start}"
        );
    }
}

#[test]
fn of_several_limits_of_a_tool_the_least_counts() {
    let draft =
        |limits| json!({"name": "x", "spec": {"source": {"builtin": "demo"}, "limits": limits}});
    let tools = json!({"*": {"rate": "9/1m", "concurrent": 4}, "delete_*": {"rate": "2/1m",
        "caller_rate": "1/1m"}});
    let limits = json!({"rate": "50/1m", "tools": tools});
    let read = ServiceDraft::from_json(&draft(limits.clone())).unwrap();
    assert_eq!(serde_json::to_value(&read.spec.limits).unwrap(), limits);
    let of = |tool| serde_json::to_value(read.spec.limits.of_tool(tool)).unwrap();
    let delete = json!({"rate": "2/1m", "caller_rate": "1/1m", "concurrent": 4});
    assert_eq!(of("delete_file"), delete);
    assert_eq!(of("read_file"), json!({"rate": "9/1m", "concurrent": 4}));

    let wrong = json!({"rate": 5, "tools": {"a": {"rate": "1/0s", "calls": 1}, "b": 5}});
    let problems = problems(&draft(wrong));
    let paths: Vec<_> = problems
        .iter()
        .filter_map(|one| one.split_once(": "))
        .collect();
    let paths: Vec<&str> = paths.into_iter().map(|(path, _)| path).collect();
    let at = |key: &str| format!("spec.limits.{key}");
    assert_eq!(
        paths,
        ["tools.a.rate", "tools.a.calls", "tools.b", "rate"].map(at)
    );
}

#[test]
fn what_is_validated_is_one_of_three() {
    let draft = |validate: &str| json!({"name": "x", "spec": {"source": {"builtin": "demo"}, "validate": validate}});
    for (text, validate) in [
        ("none", Validate::None),
        ("arguments", Validate::Arguments),
        ("all", Validate::All),
    ] {
        let read = ServiceDraft::from_json(&draft(text)).unwrap();
        assert_eq!(read.spec.validate, validate);
        assert_eq!(serde_json::to_value(validate).unwrap(), text);
    }
    assert_eq!(
        problems(&draft("results")),
        ["spec.validate: `results` is not what can be validated: write none, arguments or all"]
    );
}

#[test]
fn a_source_is_exactly_one() {
    let two = json!({"process": {"command": "x"}, "mcp": {"url": "http://h/mcp"}});
    for source in [json!({}), two] {
        let problems = problems(&json!({"name": "a", "spec": {"source": source}}));
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("exactly one")),
            "{problems:?}"
        );
    }
}

#[test]
fn credentials_in_urls_are_refused() {
    let value = json!({"name": "a", "spec": {"source": {"mcp": {"url": "https://u:p@h/mcp"}}}});
    assert_eq!(
        problems(&value),
        ["spec.source.mcp.url: credentials do not belong in a URL: use `headers`"]
    );
}

#[test]
fn filters_admit_by_pattern_and_deny_wins() {
    let filter = |allow: Option<&[&str]>, deny: &[&str]| ToolFilter {
        allow: allow.map(|list| list.iter().map(ToString::to_string).collect()),
        deny: deny.iter().map(ToString::to_string).collect(),
    };
    assert!(filter(None, &[]).admits("anything"));
    assert!(filter(Some(&["read_*"]), &[]).admits("read_file"));
    assert!(!filter(Some(&["read_*"]), &[]).admits("write_file"));
    assert!(!filter(Some(&["*"]), &["*_file"]).admits("write_file"));
    assert!(filter(Some(&["a*b*c"]), &[]).admits("aXbYc"));
    assert!(!filter(Some(&["a*b*c"]), &[]).admits("abX"));
    assert!(!filter(Some(&["abc"]), &[]).admits("abcd"));
    assert!(!filter(Some(&[]), &[]).admits("x"));
}

#[test]
fn sensitive_values_are_env_and_headers() {
    let mut spec = ServiceSpec::new(Source::Mcp(McpSource {
        url: "http://h/mcp".to_owned(),
        headers: BTreeMap::from([("authorization".to_owned(), "Bearer x".to_owned())]),
        ..McpSource::default()
    }));
    for (_, value) in spec.sensitive_values() {
        *value = "secret:1".to_owned();
    }
    assert!(!serde_json::to_string(&spec).unwrap().contains("Bearer"));
}

fn remote(url: &str, auth: &Value) -> Value {
    json!({"name": "tracker", "spec": {"source": {"mcp": {"url": url, "auth": auth}}}})
}

#[test]
fn a_client_of_oauth_is_read_and_its_secret_is_sensitive() {
    let auth = json!({"oauth": {"grant": "client_credentials", "client_id": "a", "client_secret": "b",
        "scopes": ["x"], "issuer": "https://login.example"}});
    let mut draft = ServiceDraft::from_json(&remote("https://h/mcp", &auth)).unwrap();
    let again = serde_json::to_value(&draft).unwrap();
    assert_eq!(ServiceDraft::from_json(&again).unwrap(), draft);
    let names: Vec<&str> = draft
        .spec
        .sensitive_values()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, [CLIENT_SECRET]);
    draft.spec.forget(&[CLIENT_SECRET.to_owned()]);
    assert_eq!(draft.spec.sensitive_values().count(), 0);
    for none in [json!("none"), Value::Null] {
        let mut draft = ServiceDraft::from_json(&remote("https://h/mcp", &none)).unwrap();
        assert_eq!(draft.spec.sensitive_values().count(), 0);
        assert!(serde_json::to_value(&draft).unwrap()["spec"]["source"]["mcp"]["auth"].is_null());
    }
}

#[test]
fn what_a_client_of_oauth_cannot_be_is_named() {
    let all = |auth: Value| problems(&remote("ws://h/mcp", &auth)).join("\n");
    let oauth = json!({"oauth": {"grant": "password", "client_secret": "b", "registration": "no",
        "scopes": ["a b"], "issuer": "login", "colour": 1}});
    let found = all(oauth);
    for (at, text) in [
        ("grant", "is no grant"),
        ("client_secret", "needs `client_id`"),
        ("registration", "no way to register"),
        ("scopes", "words of visible ASCII"),
        ("issuer", "must be a URL"),
        ("colour", ""),
    ] {
        assert!(
            found.contains(&format!("spec.source.mcp.auth.oauth.{at}: ")),
            "{at}: {found}"
        );
        assert!(found.contains(text), "{at}: {found}");
    }
    assert!(found.contains("over http and https only"), "{found}");
    let own = all(json!({"oauth": {"grant": "client_credentials"}}));
    assert!(
        own.contains("needs `client_id` and `client_secret`"),
        "{own}"
    );
    assert!(all(json!({})).contains("auth.oauth: is missing"));
}

#[test]
fn a_reference_is_told_from_a_value() {
    let id = Id::new(Timestamp::from_millis(1));
    assert_eq!(
        SecretRef::parse(&SecretRef(id).to_string()),
        Some(SecretRef(id))
    );
    assert_eq!(SecretRef::parse("secret:not-an-id"), None);
}

fn http_service(http: &Value) -> Value {
    json!({"name": "shop", "spec": {"source": {"http": http}}})
}

#[test]
fn an_http_service_is_its_instances_and_its_tools() {
    let value = http_service(&json!({
        "instances": [{"host": "localhost", "port": 3008}, {"host": "::1", "port": 3009, "weight": 2}],
        "base_path": "/api/mcp/", "health_path": "/health?deep=1",
        "tools": ["create_wallet", {"name": "deploy", "description": "Deploys.",
            "input_schema": {"type": "object", "required": ["to"]}, "annotations": {"readOnlyHint": false}}],
    }));
    let draft = ServiceDraft::from_json(&value).unwrap();
    let Source::Http(http) = &draft.spec.source else {
        panic!("not http");
    };
    assert_eq!(draft.spec.instances(), 2);
    assert_eq!(http.base_url(0).unwrap(), "http://localhost:3008/api/mcp");
    assert_eq!(http.base_url(1).unwrap(), "http://[::1]:3009/api/mcp");
    assert_eq!(
        http.health_url(1).unwrap(),
        "http://[::1]:3009/health?deep=1"
    );
    assert_eq!(http.base_url(2), None);
    assert_eq!(
        http.tools[0].definition(),
        json!({"name": "create_wallet", "inputSchema": {"type": "object"}})
    );
    assert_eq!(
        http.tools[1].definition(),
        json!({"name": "deploy", "description": "Deploys.", "annotations": {"readOnlyHint": false},
            "inputSchema": {"type": "object", "required": ["to"]}})
    );
    let shown = draft.spec.source.to_string();
    assert_eq!(shown, "http://localhost:3008/api/mcp and 1 more");
    let stored = serde_json::to_value(&draft.spec).unwrap();
    assert_eq!(stored["source"]["http"]["tools"][0], "create_wallet");
    let read: ServiceSpec = serde_json::from_value(stored).unwrap();
    assert_eq!(read, draft.spec);
}

#[test]
fn every_problem_of_an_http_service_is_named() {
    let value = http_service(&json!({
        "instances": [{"host": "a/b", "port": 1}, {"port": 70_000}, {"host": "c", "port": 2, "weight": 0},
            {"host": "c", "port": 2}],
        "scheme": "ftp", "base_path": "api", "health_path": "/a b", "headers": {"Host": "x"},
        "tools": ["", "a/b", "twice", "twice", 7, {"input_schema": {"type": "array"}},
            {"name": "d", "output_schema": []}],
    }));
    assert_eq!(
        problems(&value),
        [
            "spec.source.http.instances[0].host: `a/b` is neither a host name nor an address",
            "spec.source.http.instances[1].host: is missing",
            "spec.source.http.instances[1].port: 70000 is not between 1 and 65535",
            "spec.source.http.instances[2].weight: 0 is not between 1 and 1000",
            "spec.source.http.instances: c:2 stands there twice",
            "spec.source.http.scheme: `ftp` is neither http nor https",
            "spec.source.http.base_path: `api` is no path: it begins with `/` and is percent-encoded",
            "spec.source.http.health_path: `/a b` is no path: it begins with `/` and is percent-encoded",
            "spec.source.http.headers.Host: is written by Vaxel itself",
            "spec.source.http.tools[4]: expected an object, found 7",
            "spec.source.http.tools[5].name: is missing",
            "spec.source.http.tools[5].input_schema: its `type` must be `object`",
            "spec.source.http.tools[6].output_schema: must be an object",
            "spec.source.http.tools[0]: `` is not the name of a tool: 1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`",
            "spec.source.http.tools[1]: `a/b` is not the name of a tool: 1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`",
            "spec.source.http.tools[3]: `twice` stands there twice",
        ]
    );
    let none = problems(&http_service(&json!({"instances": []})));
    assert!(none[0].contains("1 to 256 instances"), "{none:?}");
    let missing = problems(&http_service(&json!({})));
    assert!(missing[0].contains("1 to 256 instances"), "{missing:?}");
}

#[test]
fn only_processes_are_stopped_when_nobody_calls() {
    let process = |idle: &str| {
        let source = json!({"process": {"command": "x"}});
        json!({"name": "a", "spec": {"source": source, "idle_timeout": idle}})
    };
    let draft = ServiceDraft::from_json(&process("10m")).unwrap();
    let idle = draft.spec.idle_timeout.map(|span| span.0);
    assert_eq!(idle, Some(std::time::Duration::from_mins(10)));
    for wrong in ["500ms", "31d"] {
        let told = ["spec.idle_timeout: must be between 1s and 30d"];
        assert_eq!(problems(&process(wrong)), told);
    }
    let remote = json!({"name": "a", "spec": {"source": {"mcp": {"url": "http://h/mcp"}}, "idle_timeout": "1m"}});
    let told = ["spec.idle_timeout: only a `process` source can be stopped"];
    assert_eq!(problems(&remote), told);
}

#[test]
fn every_value_of_a_spec_is_in_one_category_and_no_row_is_about_nothing() {
    let paths = super::schema::paths();
    assert!(paths.len() > 15, "{paths:?}");
    let missing: Vec<&String> = paths
        .iter()
        .filter(|path| category::category(path).is_none())
        .collect();
    assert!(
        missing.is_empty(),
        "give these a row in service/category.rs: {missing:?}"
    );
    let below = |path: &str, row: &str| {
        path.strip_prefix(row)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut rows: Vec<&str> = category::CATEGORIES.iter().map(|row| row.0).collect();
    for row in &rows {
        assert!(
            paths.iter().any(|path| below(path, row)),
            "`{row}` is about nothing"
        );
    }
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), category::CATEGORIES.len());
}

#[test]
fn settings_say_what_is_given_and_what_would_be() {
    let value = json!({"name": "x", "spec": {
        "source": {"process": {"command": "run", "env": {"A": "secret:1"}}}, "limits": {"memory": "1GiB"}
    }});
    let settings = settings(&ServiceDraft::from_json(&value).unwrap().spec);
    let shown: Vec<String> = settings
        .iter()
        .map(|one| {
            format!(
                "{} {} = {} ({}, else {})",
                one.category, one.path, one.value, one.from, one.default
            )
        })
        .collect();
    for expected in [
        "runtime source.process.command = \"run\" (own, else null)",
        "runtime source.process.env.A = \"secret:1\" (own, else null)",
        "runtime limits.memory = \"1GiB\" (own, else null)",
        "runtime limits.timeout = null (default, else null)",
        "runtime replicas = 1 (default, else 1)",
        "network era = \"auto\" (default, else \"auto\")",
        "security tools.deny = null (default, else null)",
        "integration description = null (default, else null)",
    ] {
        assert!(
            shown.contains(&expected.to_owned()),
            "{expected}: {shown:#?}"
        );
    }
    assert!(
        shown.iter().all(|one| !one.contains("source.mcp")),
        "{shown:#?}"
    );
}

#[test]
fn the_schema_stands_alone_and_says_category_and_default_of_each_value() {
    let schema = draft_schema();
    let text = schema.to_string();
    assert!(!text.contains("$ref"), "{text}");
    let spec = &schema["anyOf"][0]["properties"]["spec"];
    assert_eq!(spec["properties"]["replicas"]["x-category"], "runtime");
    assert_eq!(spec["properties"]["replicas"]["default"], 1);
    assert_eq!(spec["properties"]["era"]["x-category"], "network");
    assert_eq!(
        spec["properties"]["limits"]["properties"]["memory"]["x-category"],
        "runtime"
    );
    assert!(spec["properties"]["extends"].is_null());
    assert!(schema["anyOf"][1]["properties"]["extends"].is_object());
}

#[test]
fn a_service_says_how_it_wants_to_be_told_who_calls() {
    let remote = json!({"mcp": {"url": "https://h/mcp", "headers": {"X-Team": "a"}}});
    let draft = |source: &Value, identity: &Value| json!({"name": "bank", "spec": {"source": source, "identity": identity}});
    let read = |source: &Value, identity: &Value| {
        ServiceDraft::from_json(&draft(source, identity)).unwrap()
    };
    assert!(read(&remote, &json!("none")).spec.identity.is_none());
    let told = read(&remote, &json!({"jwt": {"header": "Authorization"}}));
    assert_eq!(
        told.spec.identity.token().unwrap().header(),
        "Authorization"
    );
    assert_eq!(told.spec.audience(&told.name), "https://h/mcp");
    let stored = serde_json::to_value(&told.spec).unwrap();
    assert_eq!(
        serde_json::from_value::<ServiceSpec>(stored).unwrap(),
        told.spec
    );
    let program = json!({"process": {"command": "x"}});
    let told = read(&program, &json!({"jwt": {}}));
    assert_eq!(
        told.spec.identity.token().unwrap().header(),
        "X-Vaxel-Identity"
    );
    assert_eq!(told.spec.audience(&told.name), "bank");
    let oauth = json!({"mcp": {"url": "https://h/mcp", "auth": {"oauth": {}}}});
    for (source, identity, problem) in [
        (
            &remote,
            json!({}),
            "spec.identity.jwt: is missing: write `none` or an object with `jwt`",
        ),
        (
            &remote,
            json!({"jwt": {"header": "x y"}}),
            "spec.identity.jwt.header: is not a header name",
        ),
        (
            &remote,
            json!({"jwt": {"header": "Host"}}),
            "spec.identity.jwt.header: is written by Vaxel itself",
        ),
        (
            &remote,
            json!({"jwt": {"header": "Mcp-Param-x"}}),
            "spec.identity.jwt.header: says something else to a service",
        ),
        (
            &remote,
            json!({"jwt": {"header": "x-team"}}),
            "spec.identity.jwt.header: stands in the service's `headers` already; leave one of the two out",
        ),
        (
            &oauth,
            json!({"jwt": {"header": "authorization"}}),
            "spec.identity.jwt.header: holds the service's token of OAuth; name another one",
        ),
        (
            &json!({"builtin": "demo"}),
            json!({"jwt": {}}),
            "spec.identity: a server that is part of the binary asks for none",
        ),
    ] {
        assert_eq!(problems(&draft(source, &identity)), [problem]);
    }
    assert_eq!(problems(&draft(&remote, &json!("jwt"))).len(), 1);
}
