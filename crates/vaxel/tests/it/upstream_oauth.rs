//! Servers of others that want tokens: Vaxel finds out who gives them, gets them for itself or for each user,
//! keeps them and shows them, and never passes on what a caller came with.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::{
    doors::{Answer, Raw},
    harness::{Door, TestVaxel, free_port, repository, text, tools, wait_for},
    oauth::{Issuer, visit_with},
};

const GOOD: &str = "a good long password";
const ROBOT: &str =
    r#"{"grant":"client_credentials","client_id":"robot","client_secret":"s3cret/+"}"#;

/// A server that wants tokens, and the authorization server that gives them; killed when dropped.
struct Guarded {
    child: Child,
    port: u16,
}

impl Guarded {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that takes the tokens of another authorization server.
    fn of(issuer: &str) -> Self {
        Self::start_with(&[issuer])
    }

    fn start_with(args: &[&str]) -> Self {
        let port = free_port();
        let child = Command::new("python3")
            .arg(repository("tests/peers/servers/guarded.py"))
            .arg(port.to_string())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let guarded = Self { child, port };
        wait_for("the guarded server to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        guarded
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// Asks it without Vaxel.
    fn ask(&self, path: &str) -> Answer {
        get(self.port, path, "")
    }

    fn seen(&self) -> Vec<Value> {
        let seen: Value = serde_json::from_str(&self.ask("/seen").body).unwrap();
        seen.as_array().unwrap().clone()
    }

    /// How often this happened.
    fn count(&self, at: &str) -> usize {
        self.seen().iter().filter(|one| one["at"] == at).count()
    }

    /// How often it gave tokens by this grant.
    fn grants(&self, grant: &str) -> usize {
        self.seen()
            .iter()
            .filter(|one| one["grant"] == grant)
            .count()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser's GET, with a cookie.
fn get(port: u16, path: &str, cookie: &str) -> Answer {
    let raw = Raw {
        address: format!("127.0.0.1:{port}"),
        key: String::new(),
    };
    let headers = [("authorization", ""), ("cookie", cookie)];
    raw.send("GET", path, &headers, "")
}

fn port_of(vaxel: &TestVaxel) -> u16 {
    vaxel.url().rsplit(':').next().unwrap().parse().unwrap()
}

/// Path and query of a URL.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    &rest[rest.find('/').unwrap()..]
}

/// What the tool says, called with this key over REST.
fn who(vaxel: &TestVaxel, key: &str) -> (u16, Value) {
    let door = Door {
        key: key.to_owned(),
        ..Door::of(vaxel)
    };
    let asked = json!({ "arguments": {} });
    let path = "/api/v1/tools/tracker__who/call";
    door.ask("POST", path, Some(&asked)).unwrap()
}

fn said(answer: &(u16, Value)) -> &str {
    let text = answer.1["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("{answer:?}"))
}

/// A user who signed in with a browser: a key, and the browser's cookie.
pub(crate) fn person(vaxel: &TestVaxel, name: &str) -> (String, String) {
    vaxel.ok(&["user", "add", name, "--role", "client"]);
    vaxel.with_input(&["user", "password", name], "set by the admin\n");
    let change = json!({ "username": name, "password": "set by the admin", "new_password": GOOD });
    let (status, answer) = Door::of(vaxel)
        .ask("POST", "/authenticate", Some(&change))
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    let key = vaxel.json(&["key", "create", &format!("{name}-key"), "--user", name]);
    let key = key["key"]
        .as_str()
        .unwrap_or_else(|| panic!("{key}"))
        .to_owned();
    (key, sign_in(vaxel, name))
}

/// Signs in as a browser does: the cookie.
fn sign_in(vaxel: &TestVaxel, name: &str) -> String {
    let port = port_of(vaxel);
    let page = get(port, "/oauth/connect?ticket=x", "");
    let cookie = |answer: &Answer| {
        let set = answer.header("set-cookie").unwrap();
        set.split(';').next().unwrap().to_owned()
    };
    let before = cookie(&page);
    let word = page.body.split("name=\"word\" value=\"").nth(1).unwrap();
    let word = word.split('"').next().unwrap();
    let form = format!(
        "to=%2Foauth%2Fconnect&word={word}&username={name}&password={}",
        GOOD.replace(' ', "+")
    );
    let origin = vaxel.url();
    let raw = Raw::of(vaxel);
    let headers = [
        ("authorization", ""),
        ("cookie", before.as_str()),
        ("origin", origin.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let answer = raw.send("POST", "/oauth/sign-in", &headers, &form);
    assert_eq!(answer.status, 200, "{}", answer.body);
    cookie(&answer)
}

/// Goes the way of a link, as far as it leads: the last page. `as_user` is who logs in at the other end.
fn visit(
    vaxel: &TestVaxel,
    guarded: &Guarded,
    link: &str,
    (cookie, as_user): (&str, &str),
) -> Answer {
    let begun = get(port_of(vaxel), path_of(link), cookie);
    let Some(there) = begun.header("location") else {
        return begun;
    };
    let page = guarded.ask(&format!("{}&as={as_user}", path_of(there)));
    let back = page
        .header("location")
        .unwrap_or_else(|| panic!("{}", page.body));
    get(port_of(vaxel), path_of(back), cookie)
}

/// What adds the server with these flags after `--oauth`.
fn adding<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let begin = ["service", "add", "tracker", "--url", url, "--oauth"];
    [&begin, more].concat()
}

fn add(vaxel: &TestVaxel, guarded: &Guarded, more: &[&str]) {
    vaxel.ok(&adding(&guarded.url(), more));
}

/// How a user stands with it.
fn standing(vaxel: &TestVaxel, key: &str) -> Value {
    let door = Door {
        key: key.to_owned(),
        ..Door::of(vaxel)
    };
    let path = "/api/v1/services/tracker/authorization";
    let (status, told) = door.ask("GET", path, None).unwrap();
    assert_eq!(status, 200, "{told}");
    told
}

/// Where a user who has not done so logs in.
fn link_for(vaxel: &TestVaxel, key: &str) -> String {
    let told = standing(vaxel, key);
    assert_eq!(told["state"], "needed", "{told}");
    told["link"].as_str().unwrap().to_owned()
}

/// A user who logs in there, as somebody.
fn let_in(vaxel: &TestVaxel, guarded: &Guarded, (key, cookie): (&str, &str), as_user: &str) {
    let done = visit(vaxel, guarded, &link_for(vaxel, key), (cookie, as_user));
    assert!(done.body.contains("You are logged in"), "{}", done.body);
}

fn is_ready(vaxel: &TestVaxel) -> bool {
    let told = Door::of(vaxel).ask("GET", "/api/v1/services/tracker/health?wait=10s", None);
    told.is_ok_and(|(_, told)| told["ready"] == true)
}

#[test]
fn vaxel_gets_tokens_of_its_own_once_for_all_callers_and_others_when_they_end() {
    let guarded = Guarded::start();
    let mut vaxel = TestVaxel::start();
    add(&vaxel, &guarded, &[ROBOT]);
    let key = vaxel.key();
    assert_eq!(said(&who(&vaxel, &key)), "you are robot");
    let ends = || guarded.grants("client_credentials");
    assert_eq!(ends(), 1);
    let asked = guarded.seen();
    let asked = asked.iter().find(|one| one["at"] == "token").unwrap();
    assert_eq!(asked["scope"], "tools", "what the challenge says");

    // All calls that meet an ended token share the next one.
    guarded.ask("/end");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(said(&who(&vaxel, &key)), "you are robot"));
        }
    });
    assert_eq!(ends(), 2);

    // It is kept across a restart, sealed, and nothing in clear is shown or logged.
    vaxel.kill();
    vaxel.launch();
    wait_for("the service to be ready", || is_ready(&vaxel));
    assert_eq!(said(&who(&vaxel, &key)), "you are robot");
    assert_eq!(ends(), 2);
    let seen = guarded.seen();
    let mut shown = seen.iter().filter_map(|one| one["shown"].as_str());
    assert!(
        shown.clone().all(|shown| !shown.contains(&key)),
        "a caller's key went on"
    );
    let token = shown
        .next_back()
        .unwrap()
        .trim_start_matches("Bearer ")
        .to_owned();
    let told = vaxel.ok(&["service", "show", "tracker", "--json"]) + &vaxel.log();
    assert!(!told.contains(&token) && !told.contains("s3cret"), "{told}");
    for file in ["vaxel.db", "vaxel.db-wal"] {
        let bytes = std::fs::read(vaxel.data_dir().join(file)).unwrap_or_default();
        let holds = |what: &str| {
            bytes
                .windows(what.len())
                .any(|part| part == what.as_bytes())
        };
        assert!(!holds(&token) && !holds("s3cret"), "{file}");
    }
}

#[test]
fn a_token_is_followed_by_the_next_one_before_it_ends() {
    let guarded = Guarded::start();
    guarded.ask("/short?for=1");
    let vaxel = TestVaxel::start();
    add(&vaxel, &guarded, &[ROBOT]);
    let refused = |seen: &[Value]| {
        seen.iter()
            .filter(|one| one["at"] == "mcp" && one["user"].is_null())
            .count()
    };
    let before = refused(&guarded.seen());
    wait_for("another token", || {
        assert_eq!(said(&who(&vaxel, &vaxel.key())), "you are robot");
        guarded.grants("client_credentials") >= 2
    });
    assert_eq!(
        refused(&guarded.seen()),
        before,
        "no call was refused for it"
    );
}

#[test]
fn a_client_that_its_authorization_server_does_not_know_is_told_so() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    let wrong = ROBOT.replace("s3cret/+", "other");
    let added = vaxel.cli(&adding(&guarded.url(), &[&wrong, "--timeout", "5s"]));
    assert!(
        text(&added).contains("it says `invalid_client`"),
        "{}",
        text(&added)
    );
}

#[test]
fn every_user_logs_in_and_is_called_in_their_own_name() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    let (anna, annas) = person(&vaxel, "anna");
    let (bob, bobs) = person(&vaxel, "bob");
    add(&vaxel, &guarded, &["--no-wait"]);
    let link = link_for(&vaxel, &anna);
    assert_eq!(
        link_for(&vaxel, &anna),
        link,
        "who asks again gets the same link"
    );

    // A link is of use to its own user only.
    let stolen = visit(&vaxel, &guarded, &link, (&bobs, "bob"));
    assert_eq!(stolen.status, 404, "{}", stolen.body);
    let done = visit(&vaxel, &guarded, &link, (&annas, "Anna"));
    assert!(
        done.body.contains("You are logged in to tracker"),
        "{}",
        done.body
    );
    wait_for("the service to be ready", || is_ready(&vaxel));
    assert_eq!(said(&who(&vaxel, &anna)), "you are Anna");

    // Bob's calls do not use it; they bring a link.
    let (status, refused) = who(&vaxel, &bob);
    assert_eq!(
        (status, refused["type"].as_str()),
        (424, Some("/errors/consent-needed")),
        "{refused}"
    );
    let link = refused["link"].as_str().unwrap();
    visit(&vaxel, &guarded, link, (&bobs, "Bob"));
    assert_eq!(said(&who(&vaxel, &bob)), "you are Bob");
    assert_eq!(said(&who(&vaxel, &anna)), "you are Anna");

    // A token that ended is renewed without anybody; rotated refresh tokens are used once.
    for round in 1..=2 {
        guarded.ask("/end");
        assert_eq!(said(&who(&vaxel, &anna)), "you are Anna");
        assert!(guarded.grants("refresh_token") >= round);
    }
    // One that was taken back is asked for again.
    guarded.ask("/end?all");
    let (status, refused) = who(&vaxel, &anna);
    assert_eq!(status, 424, "{refused}");
    link_for(&vaxel, &anna);
    assert_eq!(guarded.count("register"), 1);
}

#[test]
fn an_answer_is_taken_once_from_who_was_asked_in_the_browser_that_began() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    let (anna, annas) = person(&vaxel, "anna");
    let (_, bobs) = person(&vaxel, "bob");
    add(&vaxel, &guarded, &["--no-wait"]);
    let port = port_of(&vaxel);
    let back = || {
        let begun = get(port, path_of(&link_for(&vaxel, &anna)), &annas);
        let page = guarded.ask(path_of(begun.header("location").unwrap()));
        path_of(page.header("location").unwrap()).to_owned()
    };
    let way = back();
    let state = way
        .split("state=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    for (what, path, cookie, status) in [
        ("another user", way.clone(), &bobs, 404),
        ("nobody", way.clone(), &String::new(), 404),
        ("another state", way.replace(state, "x"), &annas, 404),
        (
            "another issuer",
            way.replace("%2Fas", "%2Fother"),
            &annas,
            503,
        ),
        ("a second time", way.clone(), &annas, 404),
    ] {
        let answer = get(port, &path, cookie);
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
    }
    let way = back().split("&iss=").next().unwrap().to_owned();
    assert_eq!(get(port, &way, &annas).status, 503, "no issuer");
    let way = back();
    assert_eq!(get(port, &way, &annas).status, 200);
}

#[test]
fn a_log_in_is_forgotten_when_its_user_says_so() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start_with(&["--no-auth"]);
    add(&vaxel, &guarded, &["--no-wait"]);
    let link = vaxel.ok(&["service", "authorize", "tracker", "--no-wait"]);
    let done = visit(&vaxel, &guarded, link.trim(), ("", "someone"));
    assert!(done.body.contains("You are logged in"), "{}", done.body);
    wait_for("the service to be ready", || is_ready(&vaxel));
    assert_eq!(said(&who(&vaxel, "")), "you are someone");
    let told = vaxel.json(&["service", "authorize", "tracker"]);
    assert_eq!(told["state"], "granted");
    vaxel.ok(&["service", "authorize", "tracker", "--forget"]);
    let told = vaxel.json(&["service", "authorize", "tracker", "--no-wait"]);
    assert_eq!(told["state"], "needed");
    // What there was is not shown any more.
    wait_for("calls to be refused", || who(&vaxel, "").0 != 200);
}

/// Calls the tool as a client of this revision that can be sent to pages.
fn call_as(vaxel: &TestVaxel, key: &str, revision: &str, input: &Value) -> Value {
    let raw = Raw {
        key: key.to_owned(),
        ..Raw::of(vaxel)
    };
    let able = json!({ "elicitation": { "url": {} } });
    let mut params = json!({ "name": "tracker__who", "arguments": {} });
    let message = |params: &Value| {
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string()
    };
    if revision == "2026-07-28" {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": revision,
            "io.modelcontextprotocol/clientCapabilities": able,
        });
        for (name, value) in input.as_object().into_iter().flatten() {
            params[name] = value.clone();
        }
        let headers = [
            ("mcp-protocol-version", revision),
            ("mcp-method", "tools/call"),
            ("mcp-name", "tracker__who"),
        ];
        return raw.send("POST", "/mcp", &headers, &message(&params)).json();
    }
    let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": revision, "capabilities": able, "clientInfo": { "name": "raw", "version": "1" } } });
    let hello = raw.send("POST", "/mcp", &[], &hello.to_string());
    let session = hello.header("mcp-session-id").unwrap();
    let headers = [
        ("mcp-session-id", session),
        ("mcp-protocol-version", revision),
    ];
    raw.send("POST", "/mcp", &headers, &message(&params)).json()
}

#[test]
fn a_client_is_asked_to_visit_the_page_in_its_era_and_its_call_goes_on() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    let (anna, annas) = person(&vaxel, "anna");
    let (bob, bobs) = person(&vaxel, "bob");
    add(&vaxel, &guarded, &["--no-wait"]);
    let_in(&vaxel, &guarded, (&anna, &annas), "Anna");
    wait_for("the service to be ready", || is_ready(&vaxel));

    let old = call_as(&vaxel, &bob, "2025-11-25", &Value::Null);
    assert_eq!(old["error"]["code"], -32042, "{old}");
    let old = &old["error"]["data"]["elicitations"][0];
    let asked = call_as(&vaxel, &bob, "2026-07-28", &Value::Null);
    let result = &asked["result"];
    assert_eq!(result["resultType"], "input_required", "{asked}");
    let (key, question) = result["inputRequests"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["mode"], "url");
    let link = question["params"]["url"].as_str().unwrap();
    assert_eq!(old["url"], link, "both are the same page");
    visit(&vaxel, &guarded, link, (&bobs, "Bob"));
    let retry = json!({ "inputResponses": { key: { "action": "accept" } }, "requestState": result["requestState"] });
    let done = call_as(&vaxel, &bob, "2026-07-28", &retry);
    assert_eq!(
        done["result"]["content"][0]["text"], "you are Bob",
        "{done}"
    );
    // Who cannot be sent anywhere reads it.
    let (status, told) = who(&vaxel, &vaxel.key());
    assert_eq!(status, 424, "{told}");
}

#[test]
fn a_changed_secret_or_token_endpoint_is_used_when_a_token_ends() {
    for (what, server_says_where) in [
        ("/secret?is=new", true),
        ("/moved", true),
        ("/secret?is=new", false),
    ] {
        let guarded = Guarded::start();
        guarded.ask("/short?for=1");
        if !server_says_where {
            guarded.ask("/silent");
        }
        let vaxel = TestVaxel::start();
        let post = ROBOT.replace("s3cret/+", "s3cret");
        guarded.ask("/secret?is=s3cret");
        add(&vaxel, &guarded, &[&post]);
        let before = guarded.grants("client_credentials");
        assert!(before > 0);
        guarded.ask(what);
        // Before the token ends another one is asked for, in vain; the one that is there may be good for longer.
        wait_for("another token to be refused", || {
            assert_eq!(said(&who(&vaxel, &vaxel.key())), "you are robot");
            guarded.count("refused") > 0
        });
        if what.starts_with("/secret") {
            let set = "source.mcp.auth.oauth.client_secret=new";
            vaxel.ok(&["service", "edit", "tracker", "--set", set]);
        }
        guarded.ask("/end");
        wait_for("calls to go on", || {
            let answer = who(&vaxel, &vaxel.key());
            answer.0 == 200 && guarded.grants("client_credentials") > before
        });
    }
}

#[test]
fn a_registration_that_its_authorization_server_has_forgotten_is_made_anew() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    let (anna, annas) = person(&vaxel, "anna");
    add(&vaxel, &guarded, &["--no-wait"]);
    let_in(&vaxel, &guarded, (&anna, &annas), "Anna");
    wait_for("the service to be ready", || is_ready(&vaxel));
    assert_eq!(said(&who(&vaxel, &anna)), "you are Anna");

    guarded.ask("/clients/end");
    guarded.ask("/end");
    let (status, refused) = who(&vaxel, &anna);
    assert_eq!(status, 424, "{refused}");
    let_in(&vaxel, &guarded, (&anna, &annas), "Anna");
    assert_eq!(said(&who(&vaxel, &anna)), "you are Anna");
    assert_eq!(guarded.count("register"), 2);

    let forget = || {
        vaxel.ok(&[
            "--key",
            &anna,
            "service",
            "authorize",
            "tracker",
            "--forget",
        ])
    };
    // Also where nobody who could tell comes back from there: whoever forgets the last log-in begins anew.
    forget();
    let page = get(port_of(&vaxel), path_of(&link_for(&vaxel, &anna)), &annas);
    guarded.ask("/clients/end");
    let there = guarded.ask(path_of(page.header("location").unwrap()));
    assert_eq!(there.status, 400, "{}", there.body);
    forget();
    let_in(&vaxel, &guarded, (&anna, &annas), "Anna");
}

#[test]
fn a_server_that_refuses_every_token_has_one_got_per_call() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    add(&vaxel, &guarded, &[ROBOT]);
    assert_eq!(said(&who(&vaxel, &vaxel.key())), "you are robot");
    guarded.ask("/deaf");
    for _ in 0..2 {
        let before = guarded.grants("client_credentials");
        let (status, refused) = who(&vaxel, &vaxel.key());
        assert!(status >= 500, "{refused}");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("refuses the credentials"), "{refused}");
        assert_eq!(guarded.grants("client_credentials"), before + 1);
    }
}

#[test]
fn a_log_in_is_kept_when_its_browser_is_closed_before_the_answer() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    let (anna, annas) = person(&vaxel, "anna");
    add(&vaxel, &guarded, &["--no-wait"]);
    let port = port_of(&vaxel);
    let begun = get(port, path_of(&link_for(&vaxel, &anna)), &annas);
    let page = guarded.ask(&format!(
        "{}&as=Anna",
        path_of(begun.header("location").unwrap())
    ));
    let back = path_of(page.header("location").unwrap()).to_owned();
    guarded.ask("/slow");
    let mut browser = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request =
        format!("GET {back} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncookie: {annas}\r\n\r\n");
    std::io::Write::write_all(&mut browser, request.as_bytes()).unwrap();
    wait_for("Vaxel to ask for the token", || {
        guarded.count("waiting") > 0
    });
    drop(browser);
    // The server has seen the browser go when it has answered somebody who came after.
    get(port, "/health/live", "");
    guarded.ask("/quick");
    wait_for("the log-in to be kept", || {
        standing(&vaxel, &anna)["state"] == "granted"
    });
    let lines = vaxel.json(&["audit", "list", "--action", "service.authorize"]);
    let text = lines.to_string();
    assert!(text.contains("\"anna\""), "{text}");
}

#[test]
fn a_user_logs_in_at_a_provider_of_others_in_a_browser_and_their_token_is_renewed() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start();
    let (anna, _) = person(&vaxel, "anna");
    let port = free_port();
    let back = format!("{}/oauth/callback", vaxel.url());
    let _issuer = Issuer::with(&tools, port, &[&back]);
    let guarded = Guarded::of(&format!("http://127.0.0.1:{port}"));
    let client = r#"{"client_id":"vaxel","client_secret":"s3cret/+"}"#;
    add(&vaxel, &guarded, &[client, "--no-wait"]);
    let asked = json!({ "url": link_for(&vaxel, &anna), "name": "anna", "password": GOOD, "there": "anna" });
    let seen = visit_with(&tools, &asked);
    let last = seen["text"].as_str().unwrap();
    assert!(last.contains("You are logged in to tracker"), "{seen}");
    wait_for("the service to be ready", || is_ready(&vaxel));
    assert_eq!(said(&who(&vaxel, &anna)), "you are anna");
    assert_eq!(standing(&vaxel, &anna)["state"], "granted");
    // The refresh token brings the next one, twice: it is another one then.
    for _ in 0..2 {
        guarded.ask("/end");
        assert_eq!(said(&who(&vaxel, &anna)), "you are anna");
    }
    let seen = guarded.seen();
    let good = seen.iter().filter(|one| one["user"] == "anna");
    let tokens: std::collections::BTreeSet<&str> =
        good.filter_map(|one| one["shown"].as_str()).collect();
    assert_eq!(tokens.len(), 3);
    // It is nobody else's.
    let (status, refused) = who(&vaxel, &vaxel.key());
    assert_eq!(status, 424, "{refused}");
}

/// Calls the tool of `service` so often at once: the statuses.
fn all_at_once(
    vaxel: &TestVaxel,
    service: &str,
    times: usize,
    meanwhile: impl FnOnce(),
) -> Vec<u16> {
    let begun = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let call = || {
            begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let path = format!("/api/v1/tools/{service}__who/call");
            let asked = json!({ "arguments": {} });
            Door::of(vaxel).ask("POST", &path, Some(&asked)).unwrap().0
        };
        let calls: Vec<_> = (0..times).map(|_| scope.spawn(call)).collect();
        wait_for("all calls to begin", || {
            begun.load(std::sync::atomic::Ordering::SeqCst) == times
        });
        meanwhile();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

#[test]
fn an_authorization_server_that_hangs_holds_up_no_other_service() {
    let (slow, other) = (Guarded::start(), Guarded::start());
    let vaxel = TestVaxel::start();
    add(&vaxel, &slow, &[ROBOT]);
    let url = other.url();
    vaxel.ok(&["service", "add", "other", "--url", &url, "--oauth", ROBOT]);
    let asked = slow.count("waiting");
    slow.ask("/end");
    slow.ask("/slow");
    let statuses = all_at_once(&vaxel, "tracker", 100, || {
        wait_for("a token to be asked for", || slow.count("waiting") > asked);
        other.ask("/end");
        assert_eq!(all_at_once(&vaxel, "other", 3, || ()), [200; 3]);
        slow.ask("/quick");
    });
    assert_eq!(statuses, [200; 100]);
    assert_eq!(
        slow.count("waiting"),
        asked + 1,
        "one token is for all of them"
    );
}

#[test]
fn nothing_is_asked_for_calls_that_are_over() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    add(&vaxel, &guarded, &[ROBOT]);
    vaxel.ok(&["service", "edit", "tracker", "--set", "limits.timeout=1s"]);
    wait_for("the service to be ready", || {
        who(&vaxel, &vaxel.key()).0 == 200
    });
    let asked = guarded.count("waiting");
    guarded.ask("/end");
    guarded.ask("/secret?is=other");
    guarded.ask("/slow");
    let statuses = all_at_once(&vaxel, "tracker", 6, || ());
    assert!(statuses.iter().all(|status| *status == 504), "{statuses:?}");
    guarded.ask("/quick");
    // This one waits for its turn behind them.
    assert!(who(&vaxel, &vaxel.key()).0 >= 500);
    assert_eq!(guarded.count("waiting"), asked + 2);
}

#[test]
fn what_vaxel_asks_itself_comes_from_its_owner_or_else_from_the_first_enabled_user() {
    let guarded = Guarded::start();
    let vaxel = TestVaxel::start();
    let (bob, bobs) = person(&vaxel, "bob");
    let (anna, annas) = person(&vaxel, "anna");
    add(&vaxel, &guarded, &["--no-wait"]);
    let_in(&vaxel, &guarded, (&bob, &bobs), "Bob");
    wait_for("the service to be ready", || is_ready(&vaxel));
    let_in(&vaxel, &guarded, (&anna, &annas), "Anna");
    let lists = |user: &str| {
        let seen = guarded.seen();
        let of = |one: &&Value| one["method"] == "tools/list" && one["user"] == user;
        seen.iter().filter(of).count()
    };
    assert!(lists("Bob") > 0 && lists("Anna") == 0);
    vaxel.ok(&["service", "restart", "tracker"]);
    wait_for("Anna's log-in to be used", || lists("Anna") > 0);
    let (before, annas) = (lists("Bob"), lists("Anna"));
    vaxel.ok(&["user", "edit", "anna", "--state", "disabled"]);
    vaxel.ok(&["service", "restart", "tracker"]);
    wait_for("Bob's log-in to be used", || lists("Bob") > before);
    assert_eq!(lists("Anna"), annas);
    assert_eq!(said(&who(&vaxel, &bob)), "you are Bob");
}
