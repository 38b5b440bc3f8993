//! People at their browsers: they sign in, and say what a client may do.
//!
//! A form is taken when it carries the word that follows from the browser's cookie, and when the browser says
//! that it was sent from a page of ours. A page is left only for where control says.

use axum::{
    Router,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use vaxel_auth::{digest, oauth::redirect, random};
use vaxel_control::{Authorization, Browser, CONNECT_PATH, Credentials, Impossible, Stopped};
use vaxel_core::{
    failure::{Failure, Kind},
    secret::Secret,
};

use super::{
    Base, Told,
    form::Form,
    pages::{self, Page},
    query,
};
use crate::{context::Context, extract::Public, problem::Refusal, sign_ins::Sender};

/// Where people type the code of a program.
pub(crate) const DEVICE_PATH: &str = "/oauth/device";
const AUTHORIZE_PATH: &str = "/oauth/authorize";
/// Letters of the cookie of a browser in which nobody signed in.
const LETTERS: usize = 32;

/// The paths of pages.
pub(crate) fn router() -> Router<Context> {
    Router::new()
        .route(AUTHORIZE_PATH, get(authorize))
        .route("/oauth/sign-in", post(sign_in))
        .route("/oauth/sign-out", post(sign_out))
        .route("/oauth/consent", post(consent))
        .route(DEVICE_PATH, get(device).post(decide_device))
}

/// The browser of a request: what it keeps, and which word its forms carry.
pub(crate) struct Visitor {
    cookie: Option<String>,
    base: String,
    /// It says itself that the request comes from a page of ours.
    is_from_here: bool,
}

impl FromRequestParts<Context> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Refusal> {
        let Base(base) = Base::from_request_parts(parts, context).await?;
        let origin = parts
            .headers
            .get(header::ORIGIN)
            .and_then(|origin| origin.to_str().ok());
        let own = url::Url::parse(&base).map(|url| url.origin().ascii_serialization());
        Ok(Self {
            cookie: cookie(&parts.headers, name(&base)),
            is_from_here: own.is_ok_and(|own| origin == Some(own.as_str())),
            base,
        })
    }
}

impl Visitor {
    /// Who signed in.
    pub(super) async fn browser(&self, context: &Context) -> Result<Option<Browser>, Failure> {
        match &self.cookie {
            Some(cookie) => context.control.browser(cookie).await,
            None => Ok(None),
        }
    }

    /// The same on the way to a service of somebody else and back.
    pub(super) async fn browser_on_its_way(
        &self,
        context: &Context,
    ) -> Result<Option<Browser>, Failure> {
        match &self.cookie {
            Some(cookie) => context.control.browser_on_its_way(cookie).await,
            None => Ok(None),
        }
    }

    /// Sends the browser to where a client's answer goes. A program at another port of this host gets the cookie
    /// with it, which is to be nothing then.
    fn part(&self, context: &Context, to: &str) -> Response {
        let mut response = leave(to);
        if redirect::shows_cookies_of(&self.base, to) {
            if let Some(cookie) = &self.cookie {
                context.control.forget_browser(cookie);
            }
            set(&mut response, &self.base, ("", "; Max-Age=0"));
        }
        response
    }

    /// Sends the browser to an authorization server, from which it is to come back.
    pub(super) fn go(&self, context: &Context, to: &str) -> Response {
        if let Some(cookie) = &self.cookie
            && redirect::shows_cookies_of(&self.base, to)
        {
            context.control.browser_is_shown(cookie);
        }
        leave(to)
    }

    /// The word that forms of this browser carry. Nobody who does not know the cookie knows it.
    fn word(&self) -> String {
        let cookie = self.cookie.as_deref().unwrap_or_default();
        let digest = digest::sha256(format!("form of {cookie}").as_bytes());
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// Refuses a form that was not sent from a page of ours in this browser.
    fn require_own(&self, form: &Form) -> Result<(), Failure> {
        let given = digest::sha256(form.get("word").unwrap_or_default().as_bytes());
        let own = digest::sha256(self.word().as_bytes());
        if self.cookie.is_some() && self.is_from_here && digest::are_equal(&given, &own) {
            return Ok(());
        }
        let detail = "This form did not come from a page of this server in this browser, or the browser keeps no \
                      cookies for it. Begin again in the client";
        Err(Failure::new(Kind::NotPermitted, detail))
    }

    /// The page, with a cookie for a browser that has none yet.
    pub(super) fn show(mut self, page: impl FnOnce(&str) -> Page) -> Response {
        let fresh = self.cookie.is_none().then(|| random::token(LETTERS));
        if fresh.is_some() {
            self.cookie.clone_from(&fresh);
        }
        let mut response = page(&self.word()).into_response();
        if let Some(fresh) = fresh {
            keep(&mut response, &self.base, &fresh);
        }
        response
    }
}

/// A person's request that cannot be answered, as a page.
pub(crate) struct Sorry(Failure);

impl<F: Into<Failure>> From<F> for Sorry {
    fn from(failure: F) -> Self {
        Self(failure.into())
    }
}

impl IntoResponse for Sorry {
    fn into_response(self) -> Response {
        pages::sorry(&self.0).into_response()
    }
}

/// A client sent the browser here.
async fn authorize(
    _: Public,
    visitor: Visitor,
    State(context): State<Context>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let Some(browser) = visitor.browser(&context).await? else {
        return Ok(visitor.show(|word| pages::sign_in((AUTHORIZE_PATH, query(&uri)), word, None)));
    };
    let asked = match asked(&context, &visitor, query(&uri)).await? {
        Ok(asked) => asked,
        Err(told) if context.control.is_known_to(&browser, &told.client).await? => {
            return Ok(visitor.part(&context, &told.to));
        }
        Err(told) => return Ok(visitor.show(|word| pages::told(&told, query(&uri), word))),
    };
    if context.control.has_consented(&browser, &asked).await? {
        let to = context.control.allow(&browser, asked).await?;
        return Ok(visitor.part(&context, &to));
    }
    let base = visitor.base.clone();
    Ok(visitor.show(|word| pages::consent(&asked, &browser, (query(&uri), &base, word))))
}

/// What the client asks for; the inner `Err` is what it is told instead.
async fn asked(
    context: &Context,
    visitor: &Visitor,
    query: &str,
) -> Result<Result<Authorization, Box<Impossible>>, Failure> {
    let twice = || {
        Failure::new(
            Kind::Malformed,
            "A parameter of the client's request comes twice",
        )
    };
    let form = Form::read(query.as_bytes()).ok_or_else(twice)?;
    match context
        .control
        .authorization(&form.asked(), &visitor.base)
        .await
    {
        Ok(asked) => Ok(Ok(asked)),
        Err(Stopped::Told(told)) => Ok(Err(told)),
        Err(Stopped::Here(failure)) => Err(failure),
    }
}

/// Somebody gives name and password.
async fn sign_in(
    _: Public,
    visitor: Visitor,
    sender: Sender,
    State(context): State<Context>,
    form: Result<Form, Told>,
) -> Result<Response, Sorry> {
    let form = read(form)?;
    visitor.require_own(&form)?;
    let credentials = Credentials {
        name: form.get("username").unwrap_or_default().trim().to_owned(),
        password: Secret::new(form.get("password").unwrap_or_default().to_owned()),
        new_password: form
            .get("new_password")
            .map(|new| Secret::new(new.to_owned())),
    };
    let mut others = [DEVICE_PATH, CONNECT_PATH].into_iter();
    let path = others
        .find(|path| form.get("to") == Some(*path))
        .unwrap_or(AUTHORIZE_PATH);
    let query = form.get("query").unwrap_or_default();
    match context
        .control
        .sign_in_browser(credentials, sender.origin)
        .await
    {
        Ok(cookie) => {
            // Another cookie than before: whoever knew that one knows nothing now. A page in between, since a
            // form may not lead to where the client's answer goes.
            let mut response = pages::signed_in(path, query).into_response();
            keep(&mut response, &visitor.base, cookie.expose());
            Ok(response)
        }
        Err(failure) => {
            let name = form.get("username").unwrap_or_default().to_owned();
            Ok(visitor.show(|word| pages::sign_in((path, query), word, Some((&failure, &name)))))
        }
    }
}

/// Somebody else is to sign in.
async fn sign_out(
    _: Public,
    visitor: Visitor,
    State(context): State<Context>,
    form: Result<Form, Told>,
) -> Result<Response, Sorry> {
    let form = read(form)?;
    visitor.require_own(&form)?;
    if let Some(cookie) = &visitor.cookie {
        context.control.sign_out_browser(cookie).await?;
    }
    let query = form.get("query").unwrap_or_default();
    Ok(leave(&format!("{}{AUTHORIZE_PATH}?{query}", visitor.base)))
}

/// Somebody says whether the client may.
async fn consent(
    _: Public,
    visitor: Visitor,
    State(context): State<Context>,
    form: Result<Form, Told>,
) -> Result<Response, Sorry> {
    let form = read(form)?;
    visitor.require_own(&form)?;
    let browser = visitor.browser(&context).await?.ok_or_else(over)?;
    let asked = match asked(&context, &visitor, form.get("query").unwrap_or_default()).await? {
        Ok(asked) => asked,
        // With a click: also to a client that nobody let in.
        Err(told) => return Ok(visitor.part(&context, &told.to)),
    };
    let to = match form.get("answer") {
        Some("allow") => context.control.allow(&browser, asked).await?,
        _ => asked.denied(),
    };
    Ok(visitor.part(&context, &to))
}

/// Somebody wants to let in a program that shows a code.
async fn device(
    _: Public,
    visitor: Visitor,
    State(context): State<Context>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let Some(browser) = visitor.browser(&context).await? else {
        return Ok(visitor.show(|word| pages::sign_in((DEVICE_PATH, query(&uri)), word, None)));
    };
    let form = Form::read(query(&uri).as_bytes()).unwrap_or_default();
    let Some(code) = form.get("user_code") else {
        return Ok(visitor.show(|_| pages::device_code(None)));
    };
    match context.control.waiting_device(&browser, code) {
        Ok(waiting) => {
            let base = visitor.base.clone();
            Ok(visitor.show(|word| pages::device(&waiting, &browser, (code, &base, word))))
        }
        Err(failure) => Ok(visitor.show(|_| pages::device_code(Some(&failure)))),
    }
}

async fn decide_device(
    _: Public,
    visitor: Visitor,
    State(context): State<Context>,
    form: Result<Form, Told>,
) -> Result<Response, Sorry> {
    let form = read(form)?;
    visitor.require_own(&form)?;
    let browser = visitor.browser(&context).await?.ok_or_else(over)?;
    let waiting = context
        .control
        .waiting_device(&browser, form.get("user_code").unwrap_or_default())?;
    let allows = form.get("answer") == Some("allow");
    context
        .control
        .decide_device(&browser, &waiting, allows)
        .await?;
    Ok(pages::device_done(allows).into_response())
}

fn over() -> Failure {
    let detail = "Your sign-in is over. Begin again in the client";
    Failure::new(Kind::Unauthenticated, detail)
}

fn read(form: Result<Form, Told>) -> Result<Form, Failure> {
    form.map_err(|_| {
        Failure::new(
            Kind::Malformed,
            "The form could not be read. Begin again in the client",
        )
    })
}

/// Sends the browser elsewhere; what comes next is a GET.
pub(super) fn leave(to: &str) -> Response {
    let headers = [
        (header::LOCATION, to),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// The name of the cookie. The prefix has browsers take it from this very host only, over TLS.
fn name(base: &str) -> &'static str {
    if base.starts_with("https:") {
        "__Host-vaxel"
    } else {
        "vaxel"
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).into_iter();
    let pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let found = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name);
    let value = found.map(|(_, value)| value.to_owned());
    value.filter(|value| {
        (LETTERS..=64).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn keep(response: &mut Response, base: &str, value: &str) {
    set(response, base, (value, ""));
}

fn set(response: &mut Response, base: &str, (value, end): (&str, &str)) {
    let secure = if base.starts_with("https:") {
        "; Secure"
    } else {
        ""
    };
    let text = format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{end}",
        name(base)
    );
    if let Ok(text) = header::HeaderValue::from_str(&text) {
        response.headers_mut().append(header::SET_COOKIE, text);
    }
}
