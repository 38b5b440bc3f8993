//! People on their way to a service of somebody else, and back. Only the browser in which the very user signed
//! in who asked for the link goes on from it, and only that one brings back the answer.

use axum::{
    Json as Answer, Router,
    extract::{FromRequestParts, State},
    http::{Uri, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use vaxel_control::{CALLBACK_PATH, CLIENT_PATH, CONNECT_PATH, Change, Leaving};
use vaxel_core::{principal::Principal, secret::Secret};

use super::{
    browser::{Sorry, Visitor, leave},
    form::Form,
    pages, query,
};
use crate::{context::Context, extract::Public, problem::Refusal, sign_ins::Sender};

/// The paths of this way.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route(CONNECT_PATH, get(connect))
        .route(CALLBACK_PATH, get(callback))
        .route(CLIENT_PATH, get(document))
}

/// Who sits at the browser.
enum Person {
    /// This user, with the browser unless it needs none.
    Known(Box<Principal>, Option<Visitor>),
    /// Nobody who signed in.
    Stranger(Visitor),
}

impl FromRequestParts<Context> for Person {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Refusal> {
        if let Some(everyone) = context.control.everyone() {
            return Ok(Self::Known(Box::new(everyone), None));
        }
        let visitor = Visitor::from_request_parts(parts, context).await?;
        let Sender { origin, .. } = Sender::from_request_parts(parts, context).await?;
        let browser = visitor.browser_on_its_way(context).await?;
        let user =
            browser.and_then(|one| context.control.at_browser(one.user.name.as_str(), &origin));
        Ok(match user {
            Some(user) => Self::Known(Box::new(user), Some(visitor)),
            None => Self::Stranger(visitor),
        })
    }
}

/// Somebody opened the link that a call brought.
async fn connect(
    _: Public,
    person: Person,
    State(context): State<Context>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let (user, visitor) = match person {
        Person::Known(user, visitor) => (user, visitor),
        Person::Stranger(visitor) => {
            return Ok(visitor.show(|word| pages::sign_in((CONNECT_PATH, query(&uri)), word, None)));
        }
    };
    let asked = Form::read(query(&uri).as_bytes()).unwrap_or_default();
    let ticket = asked.get("ticket").unwrap_or_default();
    let to = context.control.begin_upstream_consent(ticket, &user.name)?;
    Ok(visitor.map_or_else(|| leave(&to), |visitor| visitor.go(&context, &to)))
}

/// An authorization server sent the browser back.
async fn callback(
    _: Public,
    person: Person,
    State(context): State<Context>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let user = match person {
        Person::Known(user, _) => user,
        // Who is not signed in began nothing; the answer is not looked at.
        Person::Stranger(_) => return Err(Leaving::over().into()),
    };
    let said = Form::read(query(&uri).as_bytes()).unwrap_or_default();
    let text = |name: &str| said.get(name).map(str::to_owned);
    let back = Leaving {
        state: text("state"),
        code: text("code").map(Secret::new),
        iss: text("iss"),
        error: text("error"),
    };
    let change = Change::FinishAuthorization(back);
    let service = context
        .control
        .submit(&user, change)
        .await?
        .into_service()?;
    Ok(pages::connected(service.resource.name.as_str()).into_response())
}

/// What Vaxel is as a client.
async fn document(_: Public, State(context): State<Context>) -> Response {
    Answer(context.control.client_document()).into_response()
}
