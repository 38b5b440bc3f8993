//! Servers for the tests: a real HTTP server that counts its connections, and one that says
//! whatever bytes a test wants.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use url::Url;

/// How long a test waits for something that must happen.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// What a server has seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) accepted: usize,
    pub(super) closed: usize,
    pub(super) requests: usize,
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
}

/// A server that ends with this value.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) scheme: &'static str,
    seen: watch::Receiver<Seen>,
    /// `/gate` answers one request per permit.
    pub(super) gate: Arc<Semaphore>,
    /// `/chunks` sends what is put in here, and ends when the sender is dropped.
    pub(super) chunks: mpsc::Sender<Bytes>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Desk {
    seen: watch::Sender<Seen>,
    gate: Arc<Semaphore>,
    chunks: Arc<tokio::sync::Mutex<Option<mpsc::Receiver<Bytes>>>>,
}

impl Server {
    pub(super) async fn http() -> Self {
        Self::start("http", |stream| async move { Some(stream) }).await
    }

    /// A server whose streams go through `wrap` first: TLS, say.
    pub(super) async fn start<W, F, S>(scheme: &'static str, wrap: W) -> Self
    where
        W: Fn(TcpStream) -> F + Clone + Send + 'static,
        F: Future<Output = Option<S>> + Send,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(Seen::default());
        let (chunks, receiver) = mpsc::channel(1);
        let gate = Arc::new(Semaphore::new(0));
        let chunks_in = Arc::new(tokio::sync::Mutex::new(Some(receiver)));
        let desk = Desk {
            seen: sender,
            gate: Arc::clone(&gate),
            chunks: chunks_in,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                desk.seen.send_modify(|seen| seen.accepted += 1);
                let (desk, wrap) = (desk.clone(), wrap.clone());
                connections.spawn(async move {
                    if let Some(stream) = wrap(stream).await {
                        let answer = service_fn(|request| desk.answer(request));
                        // How a connection ends is the business of the tests.
                        let _ = http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), answer)
                            .await;
                    }
                    desk.seen.send_modify(|seen| seen.closed += 1);
                });
            }
        });
        Self {
            address,
            scheme,
            seen,
            gate,
            chunks,
            _tasks: tasks,
        }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        format!("{}://localhost:{}{path}", self.scheme, self.address.port())
            .parse()
            .unwrap()
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Waits until the server has seen it.
    pub(super) async fn until(&self, happened: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let waiting = seen.wait_for(|seen| happened(seen));
        let Ok(seen) = timeout(PATIENCE, waiting).await else {
            panic!("it never happened; the server saw {:?}", self.seen());
        };
        *seen.unwrap()
    }
}

/// Counts a request for as long as it is worked on.
struct InFlight<'a>(&'a watch::Sender<Seen>);

impl<'a> InFlight<'a> {
    fn new(seen: &'a watch::Sender<Seen>) -> Self {
        seen.send_modify(|seen| {
            seen.requests += 1;
            seen.in_flight += 1;
            seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
        });
        Self(seen)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.in_flight -= 1);
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let _in_flight = InFlight::new(&self.seen);
        let (head, body) = request.into_parts();
        Ok(match head.uri.path() {
            "/echo" => full(body.collect().await.unwrap().to_bytes()),
            "/mirror" => Response::new(body.boxed_unsync()),
            "/gate" => {
                self.gate.acquire().await.unwrap().forget();
                full(Bytes::from_static(b"through"))
            }
            "/hang" => std::future::pending().await,
            "/chunks" => {
                let receiver = self
                    .chunks
                    .lock()
                    .await
                    .take()
                    .expect("one `/chunks` per test");
                Response::new(
                    Chunks(receiver)
                        .map_err(|never| match never {})
                        .boxed_unsync(),
                )
            }
            "/big" => full(Bytes::from(vec![
                b'x';
                head.uri.query().unwrap().parse().unwrap()
            ])),
            "/empty" => Response::builder()
                .status(StatusCode::NO_CONTENT)
                .body(
                    Full::default()
                        .map_err(|never| match never {})
                        .boxed_unsync(),
                )
                .unwrap(),
            other => full(Bytes::from(format!("{} {other}", head.method))),
        })
    }
}

fn full(bytes: Bytes) -> Answer {
    Response::new(
        Full::new(bytes)
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}

/// A body of the chunks that come out of a channel.
pub(super) struct Chunks(pub(super) mpsc::Receiver<Bytes>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(ready!(self.0.poll_recv(cx)).map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// A server that speaks raw bytes: `script` gets every connection with its number, from 0.
pub(super) async fn raw<F>(
    script: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> (Url, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/path?query", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            connections.spawn(script(number, stream));
        }
    });
    (url, tasks)
}

/// Reads up to the end of a request's head.
pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
