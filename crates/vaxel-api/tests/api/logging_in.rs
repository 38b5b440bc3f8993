//! A browser, and clients that log in through it: what the tests of OAuth share.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::{Value, json};

use crate::{
    home::{Answer, As, Home, request},
    sign_ins::GOOD,
};

pub(crate) const HERE: &str = "http://127.0.0.1:3010";
pub(crate) const CALLBACK: &str = "http://127.0.0.1:7000/cb";
/// RFC 7636, appendix B.
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A browser.
#[derive(Default, Clone)]
pub(crate) struct Browser {
    pub(crate) cookie: Option<String>,
}

impl Browser {
    fn head(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let request = request(method, path).header(header::HOST, "127.0.0.1:3010");
        match &self.cookie {
            Some(cookie) => request.header(header::COOKIE, format!("other=1; vaxel={cookie}")),
            None => request,
        }
    }

    fn take(&mut self, answer: &Answer) {
        let set = answer.header("set-cookie").strip_prefix("vaxel=");
        if let Some((value, flags)) = set.and_then(|set| set.split_once(';')) {
            assert!(
                flags.contains("HttpOnly") && flags.contains("SameSite=Lax"),
                "{flags}"
            );
            self.cookie = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
    }

    pub(crate) async fn get(&mut self, home: &Home, path: &str) -> Answer {
        let request = self.head("GET", path).body(Body::empty()).unwrap();
        let answer = home.send(As::Nobody, request).await;
        self.take(&answer);
        answer
    }

    pub(crate) async fn post(&mut self, home: &Home, path: &str, form: &[(&str, &str)]) -> Answer {
        self.post_from(home, (path, Some(HERE)), form).await
    }

    pub(crate) async fn post_from(
        &mut self,
        home: &Home,
        (path, origin): (&str, Option<&str>),
        form: &[(&str, &str)],
    ) -> Answer {
        let mut head = self
            .head("POST", path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(origin) = origin {
            head = head.header(header::ORIGIN, origin);
        }
        let answer = home
            .send(As::Nobody, head.body(Body::from(encoded(form))).unwrap())
            .await;
        self.take(&answer);
        answer
    }

    /// What a client's request shows.
    pub(crate) async fn authorize(&mut self, home: &Home, query: &str) -> Answer {
        self.get(home, &format!("/oauth/authorize?{query}")).await
    }

    /// One in which anna signed in on the way to `query`.
    pub(crate) async fn of_anna(home: &Home, query: &str) -> Self {
        let mut browser = Self::default();
        let signed_in = browser.sign_in(home, query, GOOD).await;
        let text = signed_in.text();
        assert!(text.contains("You are signed in"), "{text}");
        browser
    }

    /// Says `allow` or `deny` on the page that asks about `query`.
    pub(crate) async fn say(&mut self, home: &Home, query: &str, said: &str) -> Answer {
        let word = hidden(&self.authorize(home, query).await, "word");
        let form = [("query", query), ("word", &word), ("answer", said)];
        self.post(home, "/oauth/consent", &form).await
    }

    /// Says `allow` or `deny` on the page that asks about the program with this code.
    pub(crate) async fn say_of_device(&mut self, home: &Home, code: &str, said: &str) -> Answer {
        let page = self.device(home, code).await;
        let word = hidden(&page, "word");
        let form = [("user_code", code), ("word", &word), ("answer", said)];
        self.post(home, "/oauth/device", &form).await
    }

    /// The page of the program with this code.
    pub(crate) async fn device(&mut self, home: &Home, code: &str) -> Answer {
        self.get(home, &format!("/oauth/device?user_code={code}"))
            .await
    }

    /// Signs in on the way to `query`.
    pub(crate) async fn sign_in(&mut self, home: &Home, query: &str, password: &str) -> Answer {
        let page = self.authorize(home, query).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        let word = hidden(&page, "word");
        let form = [
            ("username", "anna"),
            ("password", password),
            ("query", query),
            ("to", "/oauth/authorize"),
            ("word", &word),
        ];
        self.post(home, "/oauth/sign-in", &form).await
    }

    /// Signs in and allows: where the browser goes then.
    pub(crate) async fn allow(&mut self, home: &Home, query: &str) -> String {
        *self = Self::of_anna(home, query).await;
        let answer = self.say(home, query, "allow").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        answer.header("location").to_owned()
    }
}

pub(crate) fn encoded(form: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let letter = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(letter).collect()
    };
    let pairs: Vec<String> = form
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    pairs.join("&")
}

/// The value of a hidden field.
pub(crate) fn hidden(page: &Answer, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let (_, rest) = page
        .text()
        .split_once(&mark)
        .unwrap_or_else(|| panic!("no {name}: {}", page.text()));
    rest.split_once('"').unwrap().0.replace("&amp;", "&")
}

/// A parameter of an address.
pub(crate) fn parameter(address: &str, name: &str) -> Option<String> {
    let query = address.split_once('?')?.1;
    let pair = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    pair.map(|value| {
        value
            .replace("%3A", ":")
            .replace("%2F", "/")
            .replace('+', " ")
    })
}

pub(crate) async fn register(home: &Home, metadata: &Value) -> Value {
    let head = Browser::default().head("POST", "/oauth/register");
    let head = head.header(header::CONTENT_TYPE, "application/json");
    let asked = head.body(Body::from(metadata.to_string())).unwrap();
    let answer = home.send(As::Nobody, asked).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    answer.json()
}

/// A client that registered, and the query with which it asks.
pub(crate) async fn client(home: &Home) -> (String, String) {
    let id = client_at(home, "Test", &[CALLBACK]).await;
    let query = query(&id, &[]);
    (id, query)
}

/// A client of this name whose answers go there, without a secret.
pub(crate) async fn client_at(home: &Home, name: &str, redirects: &[&str]) -> String {
    let metadata = json!({ "client_name": name, "redirect_uris": redirects, "token_endpoint_auth_method": "none" });
    let registered = register(home, &metadata).await;
    registered["client_id"].as_str().unwrap().to_owned()
}

/// A client that anna let in, and the tokens that it got.
pub(crate) async fn let_in(home: &Home) -> (String, Value) {
    let (id, query) = client(home).await;
    let to = Browser::default().allow(home, &query).await;
    let tokens = exchange(home, &id, &parameter(&to, "code").unwrap()).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text());
    (id, tokens.json())
}

/// What a client asks with; `other` goes in the place of the usual.
pub(crate) fn query(client: &str, other: &[(&str, &str)]) -> String {
    let usual = [
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", CALLBACK),
        ("state", "a state"),
        ("scope", "mcp:read mcp:execute"),
        ("resource", "http://127.0.0.1:3010/mcp"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let is_other = |name: &str| other.iter().any(|(known, _)| *known == name);
    let kept = usual.iter().filter(|(name, _)| !is_other(name));
    let all: Vec<_> = kept
        .chain(other.iter().filter(|(_, value)| !value.is_empty()))
        .copied()
        .collect();
    encoded(&all)
}

pub(crate) async fn token(home: &Home, form: &[(&str, &str)]) -> Answer {
    Browser::default()
        .post_from(home, ("/oauth/token", None), form)
        .await
}

pub(crate) async fn exchange(home: &Home, client: &str, code: &str) -> Answer {
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
        ("resource", "http://127.0.0.1:3010/mcp"),
    ];
    token(home, &form).await
}

/// The error that a client is told when what it asks of anna is wrong.
pub(crate) async fn told(home: &Home, query: &str) -> Option<String> {
    let mut browser = Browser::of_anna(home, query).await;
    let page = browser.authorize(home, query).await;
    assert_eq!(page.header("location"), "", "nobody let it in");
    let word = hidden(&page, "word");
    let form = [("query", query), ("word", word.as_str())];
    let answer = browser.post(home, "/oauth/consent", &form).await;
    parameter(answer.header("location"), "error")
}

/// The tokens for the code that an answer to `query` brought to `to`.
pub(crate) async fn exchange_at(home: &Home, client: &str, to: &str) -> Answer {
    let (redirect, code) = (
        to.split_once('?').unwrap().0,
        parameter(to, "code").unwrap(),
    );
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", &code),
        ("redirect_uri", redirect),
        ("code_verifier", VERIFIER),
    ];
    token(home, &form).await
}

pub(crate) async fn refresh(home: &Home, client: &str, token_text: &str) -> Answer {
    token(
        home,
        &[
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", token_text),
        ],
    )
    .await
}

/// A program without a browser begins: what it keeps, and the code that it shows.
pub(crate) async fn begin_device(home: &Home, client: &str) -> (String, String) {
    let form = [
        ("client_id", client),
        ("scope", "mcp:read"),
        ("resource", HERE),
    ];
    let path = ("/oauth/device_authorization", None);
    let started = Browser::default().post_from(home, path, &form).await;
    assert_eq!(started.status, StatusCode::OK, "{}", started.text());
    let text = |name: &str| started.json()[name].as_str().unwrap().to_owned();
    (text("device_code"), text("user_code"))
}

/// It asks whether it was let in.
pub(crate) async fn ask_device(home: &Home, client: &str, device: &str) -> Answer {
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", client),
        ("device_code", device),
    ];
    token(home, &form).await
}

/// The claims of a token; nothing is verified.
pub(crate) fn claims(token: &Value) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
