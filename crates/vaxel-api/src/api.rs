//! The fallback of the gateway: runs each request on the control runtime.

use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prometheus_client::registry::Registry;
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Sleep, sleep},
};
use tower::ServiceExt;
use vaxel_control::Control;
use vaxel_gateway::{Fallback, FallbackBody, RequestId};

use crate::{
    context::{Config, Context},
    problem, routes,
};

/// What the management API stands on.
pub struct Deps {
    /// Everything that can be asked or changed.
    pub control: Control,
    /// Where requests are worked on, so that the data plane's threads are not.
    pub runtime: Handle,
    /// What `/metrics` shows.
    pub registry: Arc<Registry>,
}

/// The management API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    router: Router,
    runtime: Handle,
    body: (usize, Duration),
}

impl Api {
    /// The API of a running control plane.
    pub fn new(config: Config, deps: Deps) -> Self {
        let Deps {
            control,
            runtime,
            registry,
        } = deps;
        let context = Context {
            control,
            config: Arc::new(config),
            registry,
        };
        Self {
            body: (context.config.body_max, context.config.body_timeout),
            router: routes::router(context),
            runtime,
        }
    }

    /// The OpenAPI document, made from the handlers: for tests and for writing it to the file that is
    /// served.
    pub fn openapi() -> String {
        routes::document()
            .to_pretty_json()
            .expect("the document has only text and numbers")
    }

    /// The router itself, for tests that bring their own requests.
    pub fn router(&self) -> Router {
        self.router.clone()
    }
}

impl Fallback for Api {
    fn call(
        &self,
        request: http::Request<Incoming>,
    ) -> BoxFuture<'static, http::Response<FallbackBody>> {
        let id = request
            .extensions()
            .get::<RequestId>()
            .map(|id| id.0.to_string());
        let (most, within) = self.body;
        // What says itself that it is too long is not waited for.
        if request.body().size_hint().lower() > most as u64 {
            let refused = problem::too_large(&id.unwrap_or_default());
            return Box::pin(ready(boxed(refused)));
        }
        let request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            Body::new(Timed {
                body,
                end: Box::pin(sleep(within)),
            })
        });
        let answer = self.router.clone().oneshot(request);
        let task = Abandoned(self.runtime.spawn(answer));
        Box::pin(finish(task, id.unwrap_or_default()))
    }
}

/// A body that has to arrive in time.
struct Timed {
    body: Incoming,
    end: Pin<Box<Sleep>>,
}

/// It did not.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive in time (limits.body_timeout)")]
struct Late;

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.end.as_mut().poll(cx).map(|()| Some(Err(Late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request being worked on. When its client goes away nobody works on it any more; changes are
/// finished all the same (`Control::submit` sees to that).
struct Abandoned(JoinHandle<Result<axum::response::Response, Infallible>>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn finish(mut task: Abandoned, id: String) -> http::Response<FallbackBody> {
    let response = match (&mut task.0).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(error) => {
            tracing::error!(request.id = id, %error, "a request of the management API broke off");
            problem::broken(&id)
        }
    };
    boxed(response)
}

fn boxed(response: axum::response::Response) -> http::Response<FallbackBody> {
    response.map(|body| FallbackBody::new(body.map_err(Into::into)))
}
