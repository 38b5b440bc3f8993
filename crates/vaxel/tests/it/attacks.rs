//! Attacks on credentials, each named for what it tries, at the doors that everybody finds: REST and MCP. Those at the
//! pages and endpoints of OAuth are in `oauth_attacks.rs` and `oauth_page_attacks.rs` of the API.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    doors::{Answer, Raw},
    harness::{Door, TestVaxel, wait_for},
};

const GOOD: &str = "a good long password";
/// Another issuer, with which Vaxel shares a secret: it makes whatever token an attack needs.
const ISSUER: &str = "https://login.example.com";
const SECRET: &str = "a secret of forty-two characters, at least";

/// Makes a token with a signature of HMAC-SHA-256, or with none. Times are seconds from now.
const MINT: &str = "
import base64, hashlib, hmac, json, sys, time
said = json.load(sys.stdin)
part = lambda data: base64.urlsafe_b64encode(data).rstrip(b'=')
for name in ('exp', 'nbf', 'iat'):
    if name in said['claims']:
        said['claims'][name] += int(time.time())
message = part(json.dumps(said['header']).encode()) + b'.' + part(json.dumps(said['claims']).encode())
secret = said['secret']
seal = b'' if secret is None else hmac.new(secret.encode(), message, hashlib.sha256).digest()
print((message + b'.' + part(seal)).decode())
";

fn mint(header: &Value, claims: &Value, secret: Option<&str>) -> String {
    let mut python = Command::new("python3")
        .args(["-c", MINT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = json!({ "header": header, "claims": claims, "secret": secret });
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(said.to_string().as_bytes()).unwrap();
    drop(stdin);
    let made = python.wait_with_output().unwrap();
    assert!(made.status.success());
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// The header and the claims of a token.
fn parts(token: &str) -> [Value; 2] {
    let mut parts = token.split('.');
    [(); 2].map(|()| {
        let part = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    })
}

/// A Vaxel with a user `anna`, who may come with tokens of its own and with those of the issuer.
struct Target(TestVaxel);

impl Target {
    fn start() -> Self {
        let env = [
            ("VAXEL_OAUTH_ISSUER", ISSUER),
            ("VAXEL_OAUTH_ISSUER_SECRET", SECRET),
            ("VAXEL_OAUTH_USER_CLAIM", "sub"),
        ];
        let vaxel = TestVaxel::start_in(&["--demo"], &env);
        vaxel.ok(&["user", "add", "anna", "--role", "client"]);
        vaxel.with_input(&["user", "password", "anna"], "set by the admin\n");
        let target = Self(vaxel);
        let first =
            json!({ "username": "anna", "password": "set by the admin", "new_password": GOOD });
        let (status, answer) = target.log_in(&first);
        assert_eq!(status, 200, "{answer}");
        target
    }

    fn log_in(&self, body: &Value) -> (u16, Value) {
        let door = Door::of(&self.0);
        door.ask("POST", "/api/v1/auth/login", Some(body)).unwrap()
    }

    /// What anna gets for her password.
    fn tokens(&self) -> Value {
        let (status, tokens) = self.log_in(&json!({ "username": "anna", "password": GOOD }));
        assert_eq!(status, 200, "{tokens}");
        tokens
    }

    /// What the issuer says of her, with other claims; `null` is none.
    fn claims(&self, change: &Value) -> Value {
        let mut claims =
            json!({ "iss": ISSUER, "sub": "anna", "aud": self.0.url(), "iat": 0, "exp": 300 });
        let all = claims.as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            all.insert(name.clone(), value.clone());
        }
        all.retain(|_, value| !value.is_null());
        claims
    }

    /// A token of the issuer.
    fn minted(&self, change: &Value) -> String {
        let header = json!({ "alg": "HS256", "typ": "JWT" });
        mint(&header, &self.claims(change), Some(SECRET))
    }

    fn ask(&self, credential: &str) -> [Answer; 2] {
        let raw = Raw {
            key: credential.to_owned(),
            ..Raw::of(&self.0)
        };
        [
            raw.send("GET", "/api/v1/auth/whoami", &[], ""),
            raw.modern("tools/list", json!({})),
        ]
    }

    fn lets_in(&self, credential: &str) {
        for answer in self.ask(credential) {
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }

    /// Both doors refuse it, for this reason.
    fn refuses(&self, credential: &str, why: &str) {
        for answer in self.ask(credential) {
            assert_eq!(answer.status, 401, "{credential}: {}", answer.body);
            assert!(answer.body.contains(why), "{why}: {}", answer.body);
            assert!(answer.header("www-authenticate").is_some());
        }
    }

    /// Passwords that were hashed since the start.
    fn hashed(&self) -> u64 {
        let metrics = Raw::of(&self.0).send("GET", "/metrics", &[("authorization", "")], "");
        let mut lines = metrics.body.lines();
        let line = lines.find_map(|line| line.strip_prefix("vaxel_password_hashes_total "));
        line.expect("it is counted").parse().unwrap()
    }
}

#[test]
fn token_for_another_audience() {
    let target = Target::start();
    wait_for("the secret to be known", || {
        target.ask(&target.minted(&json!({})))[0].status == 200
    });
    target.lets_in(&target.minted(&json!({})));
    let here = target.0.url();
    for audience in [
        json!("https://other.example.com"),
        json!(["https://other.example.com", format!("{here}.evil.example")]),
        json!(here.replace("127.0.0.1", "127.0.0.1@evil.example")),
        json!(null),
        json!(""),
    ] {
        let token = target.minted(&json!({ "aud": audience }));
        target.refuses(&token, "it is for another server");
    }
    // One for an endpoint is good there alone.
    let narrow = target.minted(&json!({ "aud": format!("{here}/mcp/demo") }));
    target.refuses(&narrow, "it is for /mcp/demo and nothing else");
}

#[test]
fn algorithm_confusion() {
    let target = Target::start();
    let own = target.tokens()["access_token"].as_str().unwrap().to_owned();
    target.lets_in(&own);
    let [mut header, claims] = parts(&own);
    let keys = Door::of(&target.0).ask("GET", "/.well-known/jwks.json", None);
    let keys = keys.unwrap().1["keys"].clone();
    let mut keys = keys.as_array().unwrap().iter();
    let key = keys.find(|key| key["kid"] == header["kid"]).unwrap();
    // What everybody can read, taken for a secret that two share.
    header["alg"] = "HS256".into();
    let mut claims = claims;
    for time in ["exp", "nbf", "iat"] {
        claims[time] = if time == "exp" { 300 } else { 0 }.into();
    }
    let (x, text) = (key["x"].as_str().unwrap(), key.to_string());
    let raw = URL_SAFE_NO_PAD.decode(x).unwrap();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(raw)
    );
    for secret in [x, &text, &pem, SECRET] {
        let forged = mint(&header, &claims, Some(secret));
        target.refuses(&forged, "it names another algorithm than that of its key");
    }
    // The secret of the other issuer makes no tokens of this server, whatever they name.
    header.as_object_mut().unwrap().remove("kid");
    target.refuses(&mint(&header, &claims, Some(SECRET)), "not good here");
    // And it is good in the one way that was configured.
    for algorithm in ["RS256", "EdDSA", "ES256", "HS384", "HS512"] {
        let header = json!({ "alg": algorithm, "typ": "JWT" });
        let token = mint(&header, &target.claims(&json!({})), Some(SECRET));
        target.refuses(&token, "it names another algorithm than that of its key");
    }
}

#[test]
fn algorithm_none() {
    let target = Target::start();
    let own = target.tokens()["access_token"].as_str().unwrap().to_owned();
    let [mut header, mut claims] = parts(&own);
    for time in ["exp", "nbf", "iat"] {
        claims[time] = if time == "exp" { 300 } else { 0 }.into();
    }
    for none in ["none", "None", "NONE", ""] {
        header["alg"] = none.into();
        target.refuses(&mint(&header, &claims, None), "not good here");
        let foreign = json!({ "alg": none, "typ": "JWT" });
        let token = mint(&foreign, &target.claims(&json!({})), None);
        target.refuses(&token, "not good here");
    }
    // The right algorithm, and no signature.
    let [header, _] = parts(&own);
    target.refuses(&mint(&header, &claims, None), "its signature is wrong");
}

#[test]
fn expired_token() {
    let target = Target::start();
    for ended in [-61, -3_600, -100_000_000] {
        let token = target.minted(&json!({ "iat": ended - 300, "exp": ended }));
        target.refuses(&token, "it has expired");
    }
    let endless = target.minted(&json!({ "exp": null }));
    target.refuses(&endless, "it lacks `exp`");
}

#[test]
fn token_that_is_not_valid_yet() {
    let target = Target::start();
    for begins in [120, 100_000] {
        let times = json!({ "nbf": begins, "exp": begins + 300 });
        target.refuses(&target.minted(&times), "it is not valid yet");
        let times = json!({ "iat": begins, "exp": begins + 300 });
        target.refuses(&target.minted(&times), "it is not valid yet");
    }
}

#[test]
fn foreign_kid() {
    let target = Target::start();
    let own = target.tokens()["access_token"].as_str().unwrap().to_owned();
    let [_, mut claims] = parts(&own);
    for time in ["exp", "nbf", "iat"] {
        claims[time] = if time == "exp" { 300 } else { 0 }.into();
    }
    let thiefs = "a secret that only the thief has, and its token";
    let jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(thiefs) });
    for kid in ["thief", "../../../dev/null", "' OR 1=1 --", ""] {
        // A key that comes along, or that is to be fetched, is not looked at.
        let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": kid, "jwk": jwk,
            "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/chain" });
        let forged = mint(&header, &claims, Some(thiefs));
        target.refuses(&forged, "not good here");
        let foreign = mint(&header, &target.claims(&json!({})), Some(thiefs));
        target.refuses(&foreign, "not good here");
    }
}

#[test]
fn replayed_refresh_token() {
    let target = Target::start();
    let door = Door::of(&target.0);
    let first = target.tokens();
    let body = json!({ "refresh_token": first["refresh_token"] });
    let renew = || {
        door.ask("POST", "/api/v1/auth/refresh", Some(&body))
            .unwrap()
    };
    let (status, next) = renew();
    assert_eq!(status, 200, "{next}");
    let access = next["access_token"].as_str().unwrap();
    target.lets_in(access);
    assert_eq!(renew().0, 401);
    // Somebody has a copy: what came of either is over.
    target.refuses(access, "its sign-in was ended");
    let body = json!({ "refresh_token": next["refresh_token"] });
    let (status, _) = door
        .ask("POST", "/api/v1/auth/refresh", Some(&body))
        .unwrap();
    assert_eq!(status, 401);
}

#[test]
fn key_of_another_environment() {
    let vaxel = TestVaxel::start();
    let admin = Door::of(&vaxel);
    let shop = json!({ "name": "shop", "environment": "prod", "spec": { "source": { "builtin": "demo" } } });
    let (status, made) = admin.ask("POST", "/api/v1/services", Some(&shop)).unwrap();
    assert_eq!(status, 201, "{made}");
    let ready = "/api/v1/services/shop/health?wait=30s";
    assert_eq!(admin.ask("GET", ready, None).unwrap().1["ready"], true);
    for (name, environment, is_in) in [("of-prod", "prod", true), ("of-test", "test", false)] {
        let made = vaxel.json(&["key", "create", name, "--environment", environment]);
        let raw = Raw {
            key: made["key"].as_str().unwrap().to_owned(),
            ..Raw::of(&vaxel)
        };
        let shown = raw.send("GET", "/api/v1/services/shop", &[], "");
        assert_eq!(shown.status, if is_in { 200 } else { 404 }, "{name}");
        let call = json!({ "arguments": { "message": "through REST" } }).to_string();
        let called = raw.send("POST", "/api/v1/tools/shop__echo/call", &[], &call);
        assert_eq!(called.status == 200, is_in, "{name}: {}", called.body);
        let listed = raw.modern("tools/list", json!({}));
        assert_eq!(listed.body.contains("shop__echo"), is_in, "{name}");
        let params = json!({ "name": "shop__echo", "arguments": { "message": "through MCP" } });
        let called = raw.modern("tools/call", params);
        assert_eq!(
            called.body.contains("through MCP"),
            is_in,
            "{}",
            called.body
        );
        let alone = raw.send("POST", "/mcp/shop", &[], "{}");
        assert_eq!(alone.status == 404, !is_in, "{name}: {}", alone.body);
    }
}

#[test]
fn brute_force() {
    let target = Target::start();
    let guess = |password: &str| {
        target
            .log_in(&json!({ "username": "anna", "password": password }))
            .0
    };
    for number in 0..5 {
        assert_eq!(guess(&format!("not her password {number}")), 401);
    }
    assert_eq!(guess(GOOD), 401, "also the right one");
    let door = Door::of(&target.0);
    let old = json!({ "username": "anna", "password": GOOD });
    assert_eq!(
        door.ask("POST", "/authenticate", Some(&old)).unwrap().0,
        401
    );
    let locked = target.0.json(&["audit", "list", "--action", "user.lock"]);
    assert_eq!(locked.as_array().unwrap().len(), 1, "{locked}");
    // Of keys and refresh tokens none is near to another one.
    let key = target.0.key();
    for end in ['A', 'B'] {
        let near = format!("{}{end}", &key[..key.len() - 1]);
        if near != key {
            target.refuses(&near, "Refused");
        }
    }
    let body = json!({ "refresh_token": "vxr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" });
    let (status, _) = door
        .ask("POST", "/api/v1/auth/refresh", Some(&body))
        .unwrap();
    assert_eq!(status, 401);
}

/// Names with a password each that is not good, for every reason that there is.
fn strangers(target: &Target) -> Vec<(&'static str, &'static str)> {
    target
        .0
        .ok(&["user", "add", "disabled", "--role", "client"]);
    let given = "set by the admin\n";
    target
        .0
        .with_input(&["user", "password", "disabled"], given);
    target
        .0
        .ok(&["user", "edit", "disabled", "--state", "disabled"]);
    target.0.ok(&["user", "add", "without", "--role", "client"]);
    vec![
        ("anna", "not her password"),
        ("nobody", GOOD),
        ("disabled", "set by the admin"),
        ("without", GOOD),
        ("Not A Name", GOOD),
        ("vaxel", GOOD),
    ]
}

#[test]
fn user_enumeration_by_text() {
    let target = Target::start();
    let strangers = strangers(&target);
    let door = Door::of(&target.0);
    for path in ["/api/v1/auth/login", "/authenticate"] {
        let mut answers = strangers.iter().map(|(name, password)| {
            let body = json!({ "username": name, "password": password });
            let (status, mut answer) = door.ask("POST", path, Some(&body)).unwrap();
            // It names the request.
            if let Some(answer) = answer.as_object_mut() {
                answer.remove("request_id");
            }
            (status, answer)
        });
        let first = answers.next().unwrap();
        assert_eq!(first.0, 401, "{}", first.1);
        for (answer, (name, _)) in answers.zip(&strangers[1..]) {
            assert_eq!(answer, first, "{path} {name}");
        }
    }
}

#[test]
fn user_enumeration_by_unequal_work() {
    let target = Target::start();
    let mut strangers = strangers(&target);
    // The last one is locked by then.
    strangers.extend([("anna", "not her password"); 5]);
    strangers.push(("anna", GOOD));
    for (name, password) in strangers {
        let before = target.hashed();
        let (status, answer) = target.log_in(&json!({ "username": name, "password": password }));
        assert_eq!(status, 401, "{answer}");
        assert_eq!(
            target.hashed() - before,
            1,
            "{name}: one password is hashed"
        );
    }
}
