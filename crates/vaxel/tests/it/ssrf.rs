//! Addresses that somebody gives Vaxel to have it ask there: none leads to a metadata service, and those of people
//! who may run nothing on this machine lead into no local network that nobody named.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::{
    doors::Raw,
    harness::{Door, TestVaxel, repository, text, wait_for},
    upstream_oauth::person,
};

/// What is told of an address that is not connected to.
const REFUSED: &str = "may not be connected to";

/// A server in this process that gives every request the same answer, and counts them.
struct Fixed {
    port: u16,
    seen: Arc<AtomicUsize>,
}

impl Fixed {
    fn start(answer: impl Fn(u16, &str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        // It ends with the process of the test.
        let thread = thread::Builder::new().name("fixed".to_owned());
        let serving = thread.spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                let length = stream.read(&mut head).unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                // Whoever asked may have gone.
                let _ = stream.write_all(answer(port, path).as_bytes());
            }
        });
        drop(serving.unwrap());
        Self { port, seen }
    }

    /// One that has something to hide.
    fn treasure() -> Self {
        Self::start(|_, _| json_answer(&json!({ "secret": "treasure" })))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

fn json_answer(body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// The key of a user who may have services, and may run nothing on this machine.
fn mallory(vaxel: &TestVaxel) -> String {
    let few = "creations=1000/1s";
    vaxel.ok(&["user", "add", "mallory", "--role", "user", "--limit", few]);
    let key = vaxel.json(&[
        "key", "create", "mallory", "--user", "mallory", "--role", "user",
    ]);
    key["key"].as_str().unwrap().to_owned()
}

/// Adds a service and waits until one of these is said of it.
fn adds(vaxel: &TestVaxel, key: &str, (name, spec): (&str, &Value), expected: &[&str]) {
    let door = Door {
        key: key.to_owned(),
        ..Door::of(vaxel)
    };
    let draft = json!({ "name": name, "spec": spec });
    let (status, answer) = door.ask("POST", "/api/v1/services", Some(&draft)).unwrap();
    if status == 422 || status == 400 {
        // No address at all.
        assert!(answer["errors"].is_array(), "{name}: {answer}");
        return;
    }
    assert_eq!(status, 201, "{name}: {answer}");
    wait_for(&format!("`{name}` to say {expected:?}"), || {
        let path = format!("/api/v1/services/{name}/health");
        let said = door.ask("GET", &path, None).unwrap().1.to_string();
        expected.iter().any(|one| said.contains(one))
    });
    assert_eq!(
        door.ask("DELETE", &format!("/api/v1/services/{name}"), None)
            .unwrap()
            .0
            / 100,
        2
    );
}

/// Every way in which a user names an address in a service.
fn ways(host: &str, port: u16) -> Vec<(&'static str, Value)> {
    let mcp = |scheme: &str| json!({ "source": { "mcp": { "url": format!("{scheme}://{host}:{port}/mcp") } } });
    let plain = json!({ "instances": [{ "host": host.trim_matches(['[', ']']), "port": port }],
        "tools": [{ "name": "x", "input_schema": { "type": "object" } }] });
    let needs = |dependency: Value| json!({ "source": { "builtin": "demo" }, "health": { "dependency": [dependency], "interval": "1s" } });
    let mut health = plain.clone();
    health["health_path"] = json!("/secret");
    vec![
        ("mcp", mcp("http")),
        ("mcp-tls", mcp("https")),
        ("mcp-ws", mcp("ws")),
        ("http", json!({ "source": { "http": plain } })),
        ("http-health", json!({ "source": { "http": health } })),
        (
            "needs-url",
            needs(json!({ "url": format!("http://{host}:{port}/secret") })),
        ),
        (
            "needs-tcp",
            needs(json!({ "tcp": format!("{host}:{port}") })),
        ),
    ]
}

#[test]
fn urls_of_a_user_lead_into_no_local_network_that_the_configuration_does_not_name() {
    let vaxel = TestVaxel::start();
    let key = mallory(&vaxel);
    let treasure = Fixed::treasure();
    for (at, host) in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "0177.1",
    ]
    .into_iter()
    .enumerate()
    {
        for (way, spec) in ways(host, treasure.port) {
            if at == 0 || matches!(way, "mcp" | "http") {
                adds(&vaxel, &key, (&format!("{way}-{at}"), &spec), &[REFUSED]);
            }
        }
    }
    assert_eq!(treasure.seen(), 0, "it was connected to");
    // A service of somebody else, who may, is led there by nobody either.
    let demo = json!({ "source": { "builtin": "demo" } });
    let shared = json!({ "name": "shared", "spec": demo });
    let admin = Door::of(&vaxel);
    assert_eq!(
        admin
            .ask("POST", "/api/v1/services", Some(&shared))
            .unwrap()
            .0,
        201
    );
    vaxel.ok(&[
        "grant",
        "add",
        "shared",
        "--user",
        "mallory",
        "--permission",
        "mcp:write",
    ]);
    let door = Door {
        key,
        ..Door::of(&vaxel)
    };
    for (way, spec) in ways("127.0.0.1", treasure.port) {
        let draft = json!({ "name": "shared", "spec": spec });
        let (status, answer) = door
            .ask("PUT", "/api/v1/services/shared", Some(&draft))
            .unwrap();
        assert_eq!(status, 403, "{way}: {answer}");
    }
    assert_eq!(treasure.seen(), 0, "it was connected to");
}

#[test]
fn no_url_of_anybody_leads_to_a_metadata_service() {
    let vaxel = TestVaxel::start();
    for (at, host) in [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "[64:ff9b::a9fe:a9fe]",
    ]
    .into_iter()
    .enumerate()
    {
        for (way, spec) in ways(host, 80) {
            if at == 0 || matches!(way, "mcp" | "http") {
                adds(
                    &vaxel,
                    &vaxel.key(),
                    (&format!("{way}-{at}"), &spec),
                    &["cloud metadata"],
                );
            }
        }
    }
}

#[test]
fn a_local_network_that_the_configuration_names_is_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "[upstream]\nnetworks = [\"127.0.0.1\"]\n").unwrap();
    let vaxel = TestVaxel::start_with(&["--config", file.to_str().unwrap()]);
    let key = mallory(&vaxel);
    let treasure = Fixed::treasure();
    for (way, spec) in ways("127.0.0.1", treasure.port) {
        if matches!(way, "http" | "http-health" | "needs-url" | "needs-tcp") {
            adds(&vaxel, &key, (way, &spec), &["\"ready\":true"]);
        }
    }
    assert!(treasure.seen() > 0);
    fs::write(&file, "[upstream]\nnetworks = [\"the office\"]\n").unwrap();
    let said = text(&vaxel.cli(&["config", "check", file.to_str().unwrap()]));
    assert!(said.contains("upstream.networks[0]"), "{said}");
}

#[test]
fn a_redirect_leads_nowhere() {
    let treasure = Fixed::treasure();
    let to = treasure.url("/secret");
    let away = Fixed::start(move |_, _| {
        format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
    });
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    for (way, spec) in ways("127.0.0.1", away.port) {
        let draft = json!({ "name": way, "spec": spec });
        let (status, answer) = door.ask("POST", "/api/v1/services", Some(&draft)).unwrap();
        assert_eq!(status, 201, "{answer}");
        let before = away.seen();
        wait_for("it to be asked", || {
            away.seen() > before || way == "mcp-tls"
        });
    }
    let oauth = json!({ "grant": "client_credentials", "client_id": "x", "client_secret": "y" });
    let spec =
        json!({ "source": { "mcp": { "url": away.url("/mcp"), "auth": { "oauth": oauth } } } });
    let draft = json!({ "name": "asks", "spec": spec });
    assert_eq!(
        door.ask("POST", "/api/v1/services", Some(&draft))
            .unwrap()
            .0,
        201
    );
    let path = "/api/v1/services/asks/health?wait=5s";
    door.ask("GET", path, None).unwrap();
    assert_eq!(treasure.seen(), 0, "it was connected to");
}

/// What a server is that wants tokens, with what it says of where they are given.
fn wants_tokens(
    metadata: impl Fn(u16) -> String,
    server: impl Fn(u16) -> Value,
) -> impl Fn(u16, &str) -> String {
    move |port, path| {
        if path.starts_with("/.well-known/oauth-protected-resource") {
            let base = format!("http://127.0.0.1:{port}");
            return json_answer(
                &json!({ "resource": format!("{base}/mcp"), "authorization_servers": [base] }),
            );
        }
        if path.starts_with("/.well-known/") {
            return json_answer(&server(port));
        }
        let metadata = metadata(port);
        format!(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer resource_metadata=\"{metadata}\"\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        )
    }
}

#[test]
fn what_a_server_says_of_its_tokens_leads_into_no_local_network() {
    let own =
        |port: u16| format!("http://127.0.0.1:{port}/.well-known/oauth-protected-resource/mcp");
    let at = |token: &'static str| {
        move |port: u16| {
            json!({ "issuer": format!("http://127.0.0.1:{port}"), "token_endpoint": token,
            "authorization_endpoint": token, "registration_endpoint": token,
            "code_challenge_methods_supported": ["S256"] })
        }
    };
    let places = [
        "http://169.254.169.254/latest",
        "https://169.254.169.254/latest",
        "https://[fd00:ec2::254]/latest",
        "https://10.0.0.1/token",
        "http://10.0.0.1/token",
        "https://2852039166/token",
    ];
    let vaxel = TestVaxel::start();
    for (index, place) in places.into_iter().enumerate() {
        let servers = [
            (
                "metadata",
                Fixed::start(wants_tokens(
                    move |_| place.to_owned(),
                    at("http://x.example"),
                )),
            ),
            ("token", Fixed::start(wants_tokens(own, at(place)))),
        ];
        for (what, server) in servers {
            let oauth =
                json!({ "grant": "client_credentials", "client_id": "x", "client_secret": "y" });
            let mcp = json!({ "url": server.url("/mcp"), "auth": { "oauth": oauth } });
            let draft =
                json!({ "name": format!("{what}-{index}"), "spec": { "source": { "mcp": mcp } } });
            let door = Door::of(&vaxel);
            assert_eq!(
                door.ask("POST", "/api/v1/services", Some(&draft))
                    .unwrap()
                    .0,
                201
            );
            let path = format!("/api/v1/services/{what}-{index}/health");
            let mut said = String::new();
            wait_for("it to be refused", || {
                said = door.ask("GET", &path, None).unwrap().1.to_string();
                said.contains(REFUSED) || said.contains("since it is not https")
            });
        }
    }
}

#[test]
fn the_description_of_a_client_is_read_from_no_local_network() {
    let vaxel = TestVaxel::start();
    let treasure = Fixed::treasure();
    let (_, cookie) = person(&vaxel, "anna");
    let raw = Raw {
        key: String::new(),
        ..Raw::of(&vaxel)
    };
    for place in [
        format!("https://127.0.0.1:{}/client.json", treasure.port),
        format!("https://localhost:{}/client.json", treasure.port),
        "https://169.254.169.254/client.json".to_owned(),
        "https://[fd00:ec2::254]/client.json".to_owned(),
        "https://2852039166/client.json".to_owned(),
        "https://10.0.0.1/client.json".to_owned(),
    ] {
        let client: String = url::form_urlencoded::byte_serialize(place.as_bytes()).collect();
        let path = format!(
            "/oauth/authorize?response_type=code&client_id={client}&redirect_uri=https%3A%2F%2Fx.example"
        );
        let headers = [("authorization", ""), ("cookie", cookie.as_str())];
        let answer = raw.send("GET", &path, &headers, "");
        assert!(answer.status >= 400, "{place}: {}", answer.body);
    }
    assert_eq!(treasure.seen(), 0, "it was connected to");
}

#[test]
fn keys_of_another_issuer_are_read_from_no_metadata_service() {
    let issuer = Fixed::start(|port, _| {
        let issuer = format!("http://127.0.0.1:{port}");
        json_answer(&json!({ "issuer": issuer, "jwks_uri": "http://169.254.169.254/keys" }))
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, format!("[oauth]\nissuer = \"{}\"\n", issuer.url(""))).unwrap();
    let vaxel = TestVaxel::start_with(&["--config", file.to_str().unwrap()]);
    wait_for("the keys to be refused", || vaxel.log().contains(REFUSED));
}

/// Where Vaxel asks addresses, and whose those are. Whoever adds a place says here who may name its address, and a
/// test above tries what that must not lead to.
const PLACES: &[(&str, usize, &str)] = &[
    (
        "crates/vaxel/src/stdio.rs",
        1,
        "the address of Vaxel itself, of whoever runs the program",
    ),
    (
        "crates/vaxel-client/src/lib.rs",
        1,
        "the same, on the command line",
    ),
    (
        "crates/vaxel-control/src/oauth/client.rs",
        1,
        "the description of a client: strangers; public internet",
    ),
    (
        "crates/vaxel-control/src/oauth/issuer.rs",
        1,
        "`oauth.issuer` and its `jwks_uri`: the operator",
    ),
    (
        "crates/vaxel-control/src/runner/surroundings.rs",
        3,
        "`health.dependency`, certificates: as its owner may",
    ),
    (
        "crates/vaxel-control/src/upstream_oauth/consent.rs",
        1,
        "the server itself: as its owner may",
    ),
    (
        "crates/vaxel-control/src/upstream_oauth/finding.rs",
        1,
        "what servers name: near, or public internet",
    ),
    (
        "crates/vaxel-gateway/src/connect.rs",
        1,
        "`source.mcp.url`: as its owner may",
    ),
    (
        "crates/vaxel-gateway/src/upstream/http_tools.rs",
        4,
        "`source.http`, `health_path`: as its owner may",
    ),
    (
        "crates/vaxel-gateway/src/upstream/sse_dial.rs",
        2,
        "the same, and what it names on its own origin",
    ),
    (
        "crates/vaxel-gateway/src/upstream/websocket_dial.rs",
        1,
        "`source.mcp.url`: as its owner may",
    ),
];

/// Fields of the management API that hold an address. Those that are only shown are marked so.
const FIELDS: &[&str] = &[
    "AuditEntry.address, shown",
    "AuthorizationView.issuer, shown",
    "AuthorizationView.link, shown",
    "Dependency.url",
    "HealthSpec.dependency",
    "HttpInstance.host",
    "HttpSource.instances",
    "InstanceStatus.address, shown",
    "McpSource.url",
    "OauthClientView.redirect_uris, shown",
    "OauthClientView.token_endpoint_auth_method, shown",
    "Problem.link, shown",
    "ServiceStatus.instances, shown",
    "SessionView.address, shown",
    "SessionView.endpoint, shown",
    "StatusView.mcp_url, shown",
    "StatusView.url, shown",
    "UpstreamOauth.issuer",
];

#[test]
fn every_place_that_asks_an_address_and_every_field_that_names_one_is_known_here() {
    let verbs = [
        "origin(",
        "connect(",
        "document(",
        "status(",
        "certificate_end(",
    ];
    let asks = verbs.map(|verb| ["", "()", "()?"].map(|end| format!("egress{end}.{verb}")));
    let mut found = BTreeMap::new();
    sources(&repository("crates"), &mut |path, text| {
        let text: String = text
            .chars()
            .filter(|letter| !letter.is_whitespace())
            .collect();
        let count: usize = asks
            .iter()
            .flatten()
            .map(|one| text.matches(one.as_str()).count())
            .sum();
        if count > 0 {
            found.insert(path.to_owned(), count);
        }
        let is_egress = path.starts_with("crates/vaxel-egress/");
        let direct = ["TcpStream::connect(", "lookup_host(", "UdpSocket::bind("];
        let is_direct = direct.iter().any(|one| text.contains(one));
        assert!(is_egress || !is_direct, "{path} connects by itself");
    });
    let known = PLACES
        .iter()
        .map(|(path, count, _)| ((*path).to_owned(), *count));
    assert_eq!(
        found,
        known.collect(),
        "a place that asks an address is not in PLACES"
    );

    let document = fs::read_to_string(repository("docs/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let words = [
        "url",
        "uri",
        "host",
        "issuer",
        "address",
        "endpoint",
        "instances",
        "dependency",
        "link",
        "peer",
        "callback",
        "hook",
    ];
    let mut fields = Vec::new();
    for (schema, value) in document["components"]["schemas"].as_object().unwrap() {
        properties(value, &mut |name| {
            if words.iter().any(|word| name.contains(word)) && name != "security" {
                fields.push(format!("{schema}.{name}"));
            }
        });
    }
    fields.sort_unstable();
    let known: Vec<&str> = FIELDS
        .iter()
        .map(|one| one.trim_end_matches(", shown"))
        .collect();
    assert_eq!(
        fields, known,
        "a field that names an address is not in FIELDS"
    );
}

fn sources(folder: &Path, look: &mut impl FnMut(&str, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(&*name, "tests" | "target") {
            sources(&path, look);
        } else if path.extension().is_some_and(|end| end == "rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let shown = path.strip_prefix(repository("")).unwrap();
            look(&shown.to_string_lossy(), text);
        }
    }
}

fn properties(schema: &Value, look: &mut impl FnMut(&str)) {
    for (name, value) in schema["properties"].as_object().into_iter().flatten() {
        look(name);
        properties(value, look);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            properties(&schema[key], look);
        }
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for part in schema[key].as_array().into_iter().flatten() {
            properties(part, look);
        }
    }
}
