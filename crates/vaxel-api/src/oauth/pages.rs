//! What people see: sign in, let a client in, or read why that cannot be. No script; nothing is loaded; no other
//! page can frame these. Everything that a stranger wrote is escaped.

use std::fmt::Write;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use vaxel_auth::oauth::{endpoint::Endpoint, redirect};
use vaxel_control::{Authorization, Browser, CONNECT_PATH, Client, Impossible, Waiting};
use vaxel_core::{
    failure::{Failure, Kind, facts},
    principal::{Permission, Permissions},
};

use super::browser::DEVICE_PATH;
use crate::markdown::escape;

const STYLE: &str = "*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;margin:0;min-height:100vh;\
display:grid;place-items:center;padding:1rem;color:#1d2330;background:#eef1f6}main{background:#fff;width:100%;\
max-width:27rem;padding:2rem;border-radius:14px;box-shadow:0 2px 18px #0002}h1{font-size:1.3rem;line-height:1.3;\
margin:0 0 .8rem}p{margin:.6rem 0}label{display:block;font-weight:600;margin:1rem 0 .3rem}input{font:inherit;\
width:100%;padding:.6rem .7rem;border:1px solid #aab2c2;border-radius:8px;background:#fff;color:inherit}\
button{font:inherit;font-weight:600;padding:.65rem 1.1rem;border-radius:8px;border:1px solid #2456c8;\
background:#2456c8;color:#fff;cursor:pointer}button.no{background:none;color:inherit;border-color:#aab2c2}\
button.link{background:none;border:0;padding:0;color:#2456c8;font-weight:400;text-decoration:underline}\
.row{display:flex;gap:.7rem;margin-top:1.4rem}.row button{flex:1}ul{padding-left:1.2rem;margin:.6rem 0}\
.wrong{background:#fdecea;color:#8b1a10;padding:.6rem .8rem;border-radius:8px}.note{background:#fff6dd;\
color:#5c4500;padding:.6rem .8rem;border-radius:8px}.quiet{color:#5d677a;font-size:.9rem}code{font:14px \
ui-monospace,monospace;overflow-wrap:anywhere}form.inline{display:inline}div.quiet{margin-top:1rem}\
@media(prefers-color-scheme:dark){body{color:#dde2ec;background:#0f1217}main{background:#181c23}\
input{background:#10141a;border-color:#4a5366}button.link{color:#8fb2ff}button.no{border-color:#4a5366}\
.wrong{background:#40201d;color:#ffb4ab}.note{background:#3a3012;color:#f3dc9a}.quiet{color:#98a2b5}}";

/// A page, and where its forms may lead.
pub(crate) struct Page {
    status: StatusCode,
    title: &'static str,
    body: String,
    /// Besides this server.
    leads_to: String,
}

impl Page {
    fn new(title: &'static str, body: String) -> Self {
        Self {
            status: StatusCode::OK,
            title,
            body,
            leads_to: String::new(),
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{} · Vaxel</title><style>{STYLE}</style></head><body><main>{}\
             </main></body></html>",
            self.title, self.body
        );
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self' {}; frame-ancestors 'none'",
            self.leads_to
        );
        let mut response = (self.status, Html(page)).into_response();
        let headers = response.headers_mut();
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        for (name, value) in [
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // Forms have to say where they come from, and nobody else has to know.
            (header::REFERRER_POLICY, "same-origin"),
            (header::CACHE_CONTROL, "no-store"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Name and password. `next` is where it goes on; `before` is why the last ones were not taken, and of whom.
pub(crate) fn sign_in(
    (path, query): (&str, &str),
    word: &str,
    before: Option<(&Failure, &str)>,
) -> Page {
    let mut body = String::from("<h1>Sign in to Vaxel</h1>");
    let must_change = before
        .is_some_and(|(failure, _)| matches!(failure.kind, Kind::NotPermitted | Kind::Invalid));
    // Writing to a string cannot fail.
    if let Some((failure, _)) = before {
        let sentence = if failure.kind == Kind::NotPermitted {
            "The password is right, but somebody else knows it. Choose another one.".into()
        } else {
            failure.in_full()
        };
        let _ = write!(
            body,
            "<p class=\"wrong\" role=\"alert\">{}</p>",
            escape(&sentence)
        );
    } else {
        body.push_str(if path == CONNECT_PATH {
            "<p>Then you go on to the service that you want to use.</p>"
        } else {
            "<p>A program wants to use the tools of this server in your name.</p>"
        });
    }
    let name = escape(before.map(|(_, name)| name).unwrap_or_default());
    let _ = write!(
        body,
        "<form method=\"post\" action=\"/oauth/sign-in\">{}<input type=\"hidden\" name=\"to\" value=\"{}\">\
         <label for=\"u\">Name</label><input id=\"u\" name=\"username\" value=\"{name}\" autocomplete=\"username\" \
         autocapitalize=\"none\" required{}><label for=\"p\">Password</label><input id=\"p\" type=\"password\" \
         name=\"password\" autocomplete=\"current-password\" required{}>",
        hidden(query, word),
        escape(path),
        if name.is_empty() { " autofocus" } else { "" },
        if name.is_empty() { "" } else { " autofocus" },
    );
    if must_change {
        body.push_str(
            "<label for=\"n\">New password</label><input id=\"n\" type=\"password\" name=\"new_password\" \
             autocomplete=\"new-password\" minlength=\"12\" maxlength=\"256\" required>",
        );
    }
    body.push_str(
        "<div class=\"row\"><button>Sign in</button></div></form><p class=\"quiet\">No password yet? Who manages this \
         server gives you one: <code>vaxel user password NAME</code></p>",
    );
    Page::new("Sign in", body)
}

/// Goes on by itself, as a page of its own.
pub(crate) fn signed_in(path: &str, query: &str) -> Page {
    let to = escape(&format!("{path}?{query}"));
    let body = format!(
        "<h1>You are signed in</h1><p><a href=\"{to}\">Go on</a></p>\
         <meta http-equiv=\"refresh\" content=\"0;url={to}\">"
    );
    Page::new("Signed in", body)
}

/// What a client wants to do.
pub(crate) fn consent(
    asked: &Authorization,
    browser: &Browser,
    (query, base, word): (&str, &str, &str),
) -> Page {
    let mut body = wants(&asked.client, browser);
    body.push_str(&what((&asked.endpoint, base), asked.permissions));
    let shown = escape(&redirect::shown(&asked.redirect));
    if redirect::is_local(&asked.redirect) {
        let _ = write!(
            body,
            "<p class=\"note\">The answer goes to a program on your own machine (<code>{shown}</code>). Allow it only if \
             you have just begun this there.</p>"
        );
    } else {
        let _ = write!(body, "<p>The answer goes to <code>{shown}</code>.</p>");
    }
    let _ = write!(
        body,
        "<form method=\"post\" action=\"/oauth/consent\">{}{BUTTONS}</form>{}",
        hidden(query, word),
        not_you(browser, query, word),
    );
    let mut page = Page::new("Let a client in", body);
    page.leads_to = redirect::source(&asked.redirect);
    page
}

/// A client that the user never let in asked for what is not possible: nobody is sent there without a click.
pub(crate) fn told(told: &Impossible, query: &str, word: &str) -> Page {
    let body = format!(
        "<h1>This does not work</h1><p>A client that calls itself <q>{}</q> asked for what is not possible here: {}.</p>\
         <p>It would be told so at <code>{}</code>. Go there only if you have just come from there.</p>\
         <form method=\"post\" action=\"/oauth/consent\">{}<div class=\"row\"><button class=\"no\">Go back to \
         it</button></div></form>",
        escape(&told.client.name),
        escape(told.sentence),
        escape(&redirect::shown(&told.redirect)),
        hidden(query, word),
    );
    let mut page = Page::new("This does not work", body);
    page.status = StatusCode::BAD_REQUEST;
    page.leads_to = redirect::source(&told.redirect);
    page
}

const BUTTONS: &str = "<div class=\"row\"><button class=\"no\" name=\"answer\" value=\"deny\">No</button>\
                       <button name=\"answer\" value=\"allow\">Allow</button></div>";

/// Where the code of a program is typed.
pub(crate) fn device_code(before: Option<&Failure>) -> Page {
    let mut body = String::from("<h1>Let a program in</h1>");
    if let Some(failure) = before {
        let _ = write!(
            body,
            "<p class=\"wrong\" role=\"alert\">{}</p>",
            escape(&failure.detail)
        );
    }
    let _ = write!(
        body,
        "<form method=\"get\" action=\"{DEVICE_PATH}\"><label for=\"c\">The code that the program shows</label><input id=\"c\" \
         name=\"user_code\" autocomplete=\"off\" autocapitalize=\"characters\" maxlength=\"12\" required autofocus>\
         <div class=\"row\"><button>Go on</button></div></form>"
    );
    Page::new("Let a program in", body)
}

/// What the program behind a code wants to do.
pub(crate) fn device(
    waiting: &Waiting,
    browser: &Browser,
    (code, base, word): (&str, &str, &str),
) -> Page {
    let mut body = format!(
        "<h1>Let the program that shows <code>{}</code> use Vaxel as {}?</h1><p class=\"note\">It says that it is \
         <q>{}</q>; nobody has proven that.</p>",
        escape(code),
        escape(browser.user.name.as_str()),
        escape(&waiting.client.name),
    );
    body.push_str(&what((&waiting.endpoint, base), waiting.permissions));
    let _ = write!(
        body,
        "<p class=\"note\">Allow it only if the program shows the code <code>{code}</code> to you, on a machine that \
         you trust. Nobody else may give you a code.</p><form method=\"post\" action=\"{DEVICE_PATH}\">{}\
         <input type=\"hidden\" name=\"user_code\" value=\"{code}\">{BUTTONS}</form>",
        hidden("", word),
        code = escape(code),
    );
    Page::new("Let a program in", body)
}

/// The person has decided.
pub(crate) fn device_done(allows: bool) -> Page {
    let body = if allows {
        "<h1>The program is let in</h1><p>Go back to it; you can close this page.</p>"
    } else {
        "<h1>The program is not let in</h1><p>You can close this page.</p>"
    };
    Page::new("Done", body.to_owned())
}

/// Vaxel was let in.
pub(crate) fn connected(service: &str) -> Page {
    let body = format!(
        "<h1>You are logged in to {0}</h1><p>Vaxel calls <code>{0}</code> in your name from now on. You can close \
         this page and go on where you were.</p><p class=\"quiet\"><code>vaxel service authorize {0} --forget</code> \
         has Vaxel forget it.</p>",
        escape(service)
    );
    Page::new("Logged in", body)
}

/// Why it cannot go on.
pub(crate) fn sorry(failure: &Failure) -> Page {
    let facts = facts(failure.kind);
    if facts.status >= 500 {
        let cause = failure.cause.as_deref().map(tracing::field::display);
        tracing::error!(cause, "a page failed: {failure}");
    }
    let body = format!(
        "<h1>This does not work</h1><p>{}.</p><p class=\"quiet\">Nothing was sent to anybody.</p>",
        escape(&failure.in_full())
    );
    let mut page = Page::new("This does not work", body);
    page.status = StatusCode::from_u16(facts.status).unwrap_or(StatusCode::BAD_REQUEST);
    page
}

fn wants(client: &Client, browser: &Browser) -> String {
    let mut text = format!(
        "<h1>Let <q>{}</q> use Vaxel as {}?</h1>",
        escape(&client.name),
        escape(browser.user.name.as_str())
    );
    match &client.host {
        Some(host) => {
            let _ = write!(
                text,
                "<p>It is described at <code>{}</code>.</p>",
                escape(host)
            );
        }
        None => text
            .push_str("<p class=\"quiet\">That is what it calls itself; nobody has proven it.</p>"),
    }
    text
}

/// What is asked for.
fn what((endpoint, base): (&Endpoint, &str), permissions: Permissions) -> String {
    let place = if endpoint.path().is_empty() {
        "On this whole server".to_owned()
    } else {
        format!("At <code>{}</code>", escape(&endpoint.address(base)))
    };
    let mut text = format!("<p>{place}, as far as you may yourself, it could</p><ul>");
    for permission in permissions.iter() {
        let _ = write!(
            text,
            "<li>{} <span class=\"quiet\">({permission})</span></li>",
            meaning(permission)
        );
    }
    text.push_str("</ul>");
    text
}

const fn meaning(permission: Permission) -> &'static str {
    match permission {
        Permission::McpRead => "see services and what they offer",
        Permission::McpWrite => "create and change services",
        Permission::McpExecute => "call tools, read resources and get prompts",
        Permission::McpManage => "start, stop, share and delete services",
        Permission::HostExecute => "run programs on the server's machine",
        Permission::KeysManage => "make and revoke API keys",
        Permission::UsersRead => "see users and their sessions",
        Permission::UsersManage => "create, change and remove users",
        Permission::AccessRead => "see roles, grants and policies",
        Permission::AccessManage => "change roles, grants and policies",
        Permission::AuditRead => "read the audit log",
        Permission::CallsRead => "read records of calls and logs",
        Permission::SystemRead => "read the server's status and configuration",
        Permission::SystemManage => "stop the server and reload its configuration",
        Permission::MetricsRead => "read metrics",
    }
}

fn not_you(browser: &Browser, query: &str, word: &str) -> String {
    format!(
        "<div class=\"quiet\">You are {}. <form class=\"inline\" method=\"post\" action=\"/oauth/sign-out\">{}<button \
         class=\"link\">Somebody else?</button></form></div>",
        escape(browser.user.name.as_str()),
        hidden(query, word),
    )
}

fn hidden(query: &str, word: &str) -> String {
    format!(
        "<input type=\"hidden\" name=\"query\" value=\"{}\"><input type=\"hidden\" name=\"word\" value=\"{}\">",
        escape(query),
        escape(word)
    )
}
