//! Tokens that a remote server wants to be shown (OAuth): held here, got by the control plane.
//!
//! A request costs a look at the token that is held. Only where there is none, or it is about to end, or the
//! server refuses it, does the request wait, until its own deadline, for whoever gets tokens.

use std::{ops::Deref, sync::Arc};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Request, StatusCode, header};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    principal::Principal,
};
use vaxel_egress::{Body, Reply, Target};

use super::introduction::Introduction;

/// How often one request is sent again with a better token: once for a token, once for a wider one.
const AGAIN: usize = 2;
/// What is read of the body of a refusal, so that its connection can be used again.
const REFUSAL_MAX: usize = 64 << 10;

/// Where a server's tokens come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenSource {
    /// Whose tokens.
    pub service: Id<Service>,
    /// Each user has one of their own.
    pub per_user: bool,
    /// Takes requests for tokens; when it is full, calls that need one are refused as busy.
    pub queue: mpsc::Sender<TokenRequest>,
}

/// Somebody needs a token.
#[derive(Debug)]
pub struct TokenRequest {
    /// To be shown to this service.
    pub service: Id<Service>,
    /// The user who calls; `None` is Vaxel itself, or everyone where users have none of their own.
    pub user: Option<Arc<str>>,
    /// What the server refused. Without it the answer is the token that is kept, or that there is none.
    pub refused: Option<Refused>,
    /// The answer.
    pub answer: oneshot::Sender<Result<Option<Bearer>, Failure>>,
}

/// A request that a server refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The token that it came with, as it was sent.
    pub token: Option<HeaderValue>,
    /// What the server said in `WWW-Authenticate` (RFC 9110 §11.6.1), all of it.
    pub challenge: String,
    /// The token is good, but not for this (RFC 6750 §3.1).
    pub is_narrow: bool,
}

/// What is sent in `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The whole value, marked as sensitive.
    pub value: HeaderValue,
    /// From then on another one should be shown.
    pub until: Option<Instant>,
    /// It was got for this very request: a server that refuses it would refuse the next one, too.
    pub is_new: bool,
}

/// The way to one server, for one holder of tokens or without any.
#[derive(Clone)]
pub(crate) struct Door {
    target: Target,
    wallet: Option<Arc<Wallet>>,
    /// How callers are introduced there. Who calls is told by whoever makes a request; those of Vaxel's own
    /// are told here.
    introduction: Option<Introduction>,
}

struct Wallet {
    source: TokenSource,
    user: Option<Arc<str>>,
    held: ArcSwapOption<Bearer>,
}

impl Deref for Door {
    type Target = Target;
    fn deref(&self) -> &Target {
        &self.target
    }
}

impl Door {
    pub(crate) fn new(
        target: Target,
        source: Option<TokenSource>,
        introduction: Option<Introduction>,
    ) -> Self {
        let wallet = source.map(|source| Wallet::new(source, None));
        Self {
            target,
            wallet,
            introduction,
        }
    }

    /// The same for a user; `None` where users have no tokens of their own.
    pub(crate) fn of_user(&self, user: &Arc<str>) -> Option<Self> {
        let source = &self.wallet.as_ref()?.source;
        source.per_user.then(|| Self {
            target: self.target.clone(),
            wallet: Some(Wallet::new(source.clone(), Some(Arc::clone(user)))),
            introduction: self.introduction.clone(),
        })
    }

    /// Whether users have tokens of their own here.
    pub(crate) fn is_per_user(&self) -> bool {
        let wallet = self.wallet.as_ref();
        wallet.is_some_and(|wallet| wallet.source.per_user)
    }

    /// Whether tokens are shown here.
    pub(crate) const fn has_tokens(&self) -> bool {
        self.wallet.is_some()
    }

    /// Sends a request, as [`Target::send`], with a token where one is wanted.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        if let Some(introduction) = &self.introduction
            && !request.headers().contains_key(introduction.header())
        {
            let (name, value) = introduction.of(&Principal::system())?.header();
            request.headers_mut().insert(name, value);
        }
        match &self.wallet {
            None => Ok(self.target.send(request, deadline).await?),
            // On the heap: others should not be larger for it.
            Some(wallet) => Box::pin(wallet.send(&self.target, request, deadline)).await,
        }
    }
}

impl Wallet {
    fn new(source: TokenSource, user: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self {
            source,
            user,
            held: ArcSwapOption::empty(),
        })
    }

    async fn send(
        &self,
        target: &Target,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let mut bearer = self.kept(deadline).await?;
        for _ in 0..AGAIN {
            let Some(again) = copy(&request) else { break };
            let reply = target
                .send(with(request, bearer.as_deref()), deadline)
                .await?;
            let refused = refusal(&reply, bearer.as_deref());
            let is_new = bearer.as_ref().is_some_and(|bearer| bearer.is_new);
            let Some(refused) = refused.filter(|refused| refused.is_narrow || !is_new) else {
                return Ok(reply);
            };
            // The refusal was read: the connection is good for the next request. What it says is not needed.
            let _ = reply.body.collect(REFUSAL_MAX, deadline).await;
            request = again;
            bearer = self.ask(Some(refused), deadline).await?;
        }
        Ok(target
            .send(with(request, bearer.as_deref()), deadline)
            .await?)
    }

    /// The token that is held, as long as it is good.
    async fn kept(&self, deadline: Instant) -> Result<Option<Arc<Bearer>>, Failure> {
        let held = self.held.load_full();
        let now = Instant::now();
        match held {
            Some(held) if held.until.is_none_or(|until| now < until) => Ok(Some(held)),
            _ => self.ask(None, deadline).await,
        }
    }

    async fn ask(
        &self,
        refused: Option<Refused>,
        deadline: Instant,
    ) -> Result<Option<Arc<Bearer>>, Failure> {
        let (answer, answered) = oneshot::channel();
        let request = TokenRequest {
            service: self.source.service,
            user: self.user.clone(),
            refused,
            answer,
        };
        self.source.queue.try_send(request).map_err(|_| {
            let detail = "Too many calls wait for a token of this service; try again in a moment";
            Failure::new(Kind::Busy, detail).retry_after(1)
        })?;
        let late = |_| {
            let detail = "The authorization server of this service did not give a token in time";
            Failure::new(Kind::UpstreamTimeout, detail)
        };
        let answered = timeout_at(deadline, answered).await.map_err(late)?;
        let bearer = answered.map_err(|_| {
            let detail = "Vaxel is stopping, so no token is fetched for this service any more";
            Failure::new(Kind::UpstreamUnavailable, detail)
        })??;
        if self.user.is_some() || !self.source.per_user {
            let held = bearer.clone().map(|bearer| Bearer {
                is_new: false,
                ..bearer
            });
            self.held.store(held.map(Arc::new));
        }
        // Whose token Vaxel's own requests come with is asked each time: who lent it may be gone.
        Ok(bearer.map(Arc::new))
    }
}

/// What a server refused for want of a token, or of a wider one.
fn refusal(reply: &Reply, bearer: Option<&Bearer>) -> Option<Refused> {
    let all = reply.parts.headers.get_all(header::WWW_AUTHENTICATE);
    let texts = all.iter().filter_map(|value| value.to_str().ok());
    let challenge = texts.collect::<Vec<_>>().join(", ");
    let is_narrow = match reply.parts.status {
        StatusCode::UNAUTHORIZED => false,
        StatusCode::FORBIDDEN if challenge.contains("insufficient_scope") => true,
        _ => return None,
    };
    Some(Refused {
        token: bearer.map(|bearer| bearer.value.clone()),
        challenge,
        is_narrow,
    })
}

fn with(mut request: Request<Body>, bearer: Option<&Bearer>) -> Request<Body> {
    if let Some(bearer) = bearer {
        let value = bearer.value.clone();
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request
}

/// The same request once more; `None` when its body can be sent only once.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let body = match request.body() {
        Body::Empty => Body::Empty,
        Body::Full(bytes) => Body::Full(bytes.clone()),
        Body::Noted(bytes, left) => Body::Noted(bytes.clone(), Arc::clone(left)),
        Body::Incoming(_) | Body::Stream(_) => return None,
    };
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}
