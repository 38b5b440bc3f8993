//! Requests against real servers in the same process.

mod server;

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use server::{Chunks, PATIENCE, Seen, Server, raw, read_head};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use url::Url;
use vaxel_core::failure::{Failure, Kind};

use crate::{
    Body, Config, Egress, Error, Network, Networks, Policy, Roots, Stage, Target, target::Setback,
};

fn egress(config: Config) -> Egress {
    Egress::new(config).unwrap()
}

fn target(url: &Url) -> Target {
    egress(Config::default()).origin(url).unwrap()
}

fn limited(url: &Url, max: usize) -> Target {
    let config = Config {
        max_connections_per_origin: max,
        ..Config::default()
    };
    egress(config).origin(url).unwrap()
}

fn post(target: &Target, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri(target.uri())
        .body(body.into())
        .unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::Empty).unwrap()
}

/// A deadline that no passing test reaches.
fn late() -> Instant {
    Instant::now() + PATIENCE
}

/// A deadline that is reached while the test waits for it.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

async fn fetch(target: &Target, request: Request<Body>) -> Bytes {
    let reply = target.send(request, late()).await.unwrap();
    reply.body.collect(usize::MAX, late()).await.unwrap()
}

#[tokio::test]
async fn requests_one_after_the_other_share_one_connection() {
    let server = Server::http().await;
    let target = target(&server.url("/echo"));
    for size in [0, 1, 100, 100_000, 3_000_000, 10] {
        let body = Bytes::from(vec![b'a'; size]);
        assert_eq!(fetch(&target, post(&target, body.clone())).await, body);
    }
    for _ in 0..20 {
        let reply = target.send(get("/empty"), late()).await.unwrap();
        assert_eq!(reply.parts.status, 204);
    }
    for _ in 0..20 {
        let mut head = get("/some");
        *head.method_mut() = Method::HEAD;
        assert_eq!(fetch(&target, head).await, "");
    }
    let Seen {
        accepted, requests, ..
    } = server.seen();
    assert_eq!((accepted, requests), (1, 46));
}

#[tokio::test]
async fn targets_of_one_origin_share_connections_and_keep_their_paths() {
    let server = Server::http().await;
    let egress = egress(Config::default());
    let one = egress.origin(&server.url("/one?x=1#fragment")).unwrap();
    let two = egress.origin(&server.url("")).unwrap();
    assert_eq!(one.uri(), "/one?x=1");
    assert_eq!(fetch(&one, post(&one, Body::Empty)).await, "POST /one");
    assert_eq!(fetch(&two, post(&two, Body::Empty)).await, "POST /");
    assert_eq!(server.seen().accepted, 1);
}

#[tokio::test]
async fn the_request_line_holds_the_path_and_the_host_header_the_origin() {
    let (heads, mut seen) = mpsc::channel(1);
    let (url, _server) = raw(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            let head = read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            heads.send(head).await.unwrap();
        }
    })
    .await;
    let target = target(&url);
    let request = Request::get("https://elsewhere.example/a?b").header("host", "lies.example");
    target
        .send(request.body(Body::Empty).unwrap(), late())
        .await
        .unwrap();
    let expected = format!("GET /a?b HTTP/1.1\r\nhost: {}\r\n\r\n", url.authority());
    assert_eq!(seen.recv().await.unwrap(), expected);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_it_was_unused_is_replaced_unseen() {
    let (closed, mut is_closed) = mpsc::channel(1);
    let (url, _server) = raw(move |_, mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            drop(stream);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let target = target(&url);
    for _ in 0..5 {
        assert_eq!(fetch(&target, get("/")).await, "ok");
        is_closed.recv().await.unwrap();
        let_the_reactor_look().await;
    }
}

/// The runtime of these tests has one thread, and looks at its sockets between tasks.
async fn let_the_reactor_look() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_has_not_left_when_the_connection_closes_comes_back_whole() {
    let (close, closing) = oneshot::channel::<()>();
    let (closed, is_closed) = oneshot::channel::<()>();
    let script = parking_lot::Mutex::new(Some((closing, closed)));
    let (url, _server) = raw(move |_, stream| {
        let (closing, closed) = script.lock().take().expect("one connection");
        async move {
            closing.await.unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    })
    .await;
    let target = target(&url);
    let mut lease = target.lease(late()).await;
    lease.open(late()).await.unwrap();
    close.send(()).unwrap();
    is_closed.await.unwrap();
    let_the_reactor_look().await;
    let request = post(&target, Bytes::from_static(b"precious"));
    match target.exchange(&mut lease, request, late()).await {
        Err(Setback::Unsent(request, _)) => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "precious");
        }
        Err(Setback::Final(error)) => panic!("{error}"),
        Ok(_) => panic!("nobody can have answered"),
    }
}

#[tokio::test]
async fn a_server_that_closes_after_reading_the_request_breaks_it_and_it_is_not_repeated() {
    let (counts, mut count) = mpsc::channel(10);
    let (url, _server) = raw(move |number, mut stream| {
        let counts = counts.clone();
        async move {
            read_head(&mut stream).await;
            counts.send(number).await.unwrap();
        }
    })
    .await;
    let error = target(&url).send(get("/"), late()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Broken {
                stage: Stage::Answer,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.was_sent());
    assert_eq!(Failure::from(error).kind, Kind::UpstreamLost);
    assert_eq!(count.recv().await, Some(0));
    assert!(count.try_recv().is_err(), "there was one attempt");
}

#[tokio::test]
async fn a_server_that_closes_inside_the_body_breaks_it() {
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let (url, _server) = raw(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let target = target(&url);
        let reply = target.send(get("/"), late()).await.unwrap();
        let error = reply.body.collect(usize::MAX, late()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Broken {
                    stage: Stage::Body,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_the_connection() {
    let (url, _server) = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil ")
            .await
            .unwrap();
        stream.write_all(b"the end").await.unwrap();
    })
    .await;
    let target = target(&url);
    for _ in 0..2 {
        assert_eq!(fetch(&target, get("/")).await, "until the end");
    }
}

#[tokio::test]
async fn something_that_is_not_http_is_said_to_be_that() {
    let (url, _server) = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
            .await
            .unwrap();
        // Stays open until the client gives up.
        assert!(stream.read_u8().await.is_err());
    })
    .await;
    let error = target(&url).send(get("/"), late()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn a_head_over_its_limit_is_refused() {
    let (url, _server) = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        let filler = "x".repeat(10_000);
        let answer = format!("HTTP/1.1 200 OK\r\nfiller: {filler}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert!(stream.read_u8().await.is_err());
    })
    .await;
    assert_eq!(
        fetch(&target(&url), get("/")).await,
        "",
        "64 KiB are the default"
    );
    let small = egress(Config {
        max_head_bytes: 9_000,
        ..Config::default()
    })
    .origin(&url)
    .unwrap();
    let error = small.send(get("/"), late()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                part: "head",
                limit: 9_000,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_and_its_connection_closed() {
    let server = Server::http().await;
    let target = target(&server.url("/mirror"));
    let reply = target.send(get("/big?1000"), late()).await.unwrap();
    assert_eq!(
        reply.body.collect(1_000, late()).await.unwrap().len(),
        1_000
    );
    let reply = target.send(get("/big?1001"), late()).await.unwrap();
    let error = reply.body.collect(1_000, late()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                part: "body",
                limit: 1_000,
                ..
            }
        ),
        "{error:?}"
    );
    server.until(|seen| seen.closed == 1).await;
    // The same without a length that is known beforehand.
    let (chunks, body) = mpsc::channel(3);
    for chunk in ["123", "456", "7"] {
        chunks.send(Bytes::from(chunk)).await.unwrap();
    }
    let reply = target
        .send(post(&target, Body::stream(Chunks(body))), late())
        .await
        .unwrap();
    let error = reply.body.collect(6, late()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                part: "body",
                limit: 6,
                ..
            }
        ),
        "{error:?}"
    );
    server.until(|seen| seen.closed == 2).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_with_the_deadline_and_the_server_notices() {
    let server = Server::http().await;
    let target = target(&server.url("/hang"));
    let error = target.send(get("/hang"), soon()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                stage: Stage::Answer,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.was_sent());
    assert_eq!(Failure::from(error).kind, Kind::UpstreamTimeout);
    server.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_with_the_deadline_and_the_server_notices() {
    let server = Server::http().await;
    let target = target(&server.url("/chunks"));
    let reply = target.send(get("/chunks"), late()).await.unwrap();
    server
        .chunks
        .send(Bytes::from_static(b"first"))
        .await
        .unwrap();
    let error = reply.body.collect(100, soon()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                stage: Stage::Body,
                ..
            }
        ),
        "{error:?}"
    );
    server.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_request_whose_caller_goes_away_closes_its_connection() {
    let server = Server::http().await;
    let target = target(&server.url("/hang"));
    let mut callers = JoinSet::new();
    let caller = target.clone();
    callers.spawn(async move { caller.send(get("/hang"), late()).await.map(drop) });
    server.until(|seen| seen.requests == 1).await;
    callers.abort_all();
    server.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn an_abandoned_body_closes_its_connection() {
    let server = Server::http().await;
    let target = target(&server.url("/chunks"));
    let mut reply = target.send(get("/chunks"), late()).await.unwrap();
    server
        .chunks
        .send(Bytes::from_static(b"first"))
        .await
        .unwrap();
    let first = reply
        .body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert_eq!(first, "first");
    assert_eq!(server.seen().closed, 0);
    drop(reply);
    server.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn chunks_of_an_answer_are_seen_as_they_come() {
    let mut server = Server::http().await;
    let target = target(&server.url("/chunks"));
    let mut reply = target.send(get("/chunks"), late()).await.unwrap();
    for number in 0..50 {
        let chunk = Bytes::from(format!("chunk {number}"));
        server.chunks.send(chunk.clone()).await.unwrap();
        let frame = timeout(PATIENCE, reply.body.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    server.chunks = mpsc::channel(1).0;
    assert!(
        timeout(PATIENCE, reply.body.frame())
            .await
            .unwrap()
            .is_none()
    );
    fetch(&target, get("/again")).await;
    assert_eq!(
        server.seen().accepted,
        1,
        "a body that was read to its end keeps its connection"
    );
}

#[tokio::test]
async fn chunks_of_a_request_leave_as_they_come_also_after_the_answer_has_begun() {
    let server = Server::http().await;
    let target = target(&server.url("/mirror"));
    let (chunks, body) = mpsc::channel(1);
    let request = post(&target, Body::stream(Chunks(body)));
    let mut reply = target.send(request, late()).await.unwrap();
    for number in 0..50 {
        let chunk = Bytes::from(format!("chunk {number}"));
        chunks.send(chunk.clone()).await.unwrap();
        let frame = timeout(PATIENCE, reply.body.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    drop(chunks);
    assert!(
        timeout(PATIENCE, reply.body.frame())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_connection_whose_request_is_still_being_sent_is_not_used_again() {
    let server = Server::http().await;
    let target = target(&server.url("/some"));
    let (chunks, body) = mpsc::channel(1);
    chunks
        .send(Bytes::from_static(b"not the end"))
        .await
        .unwrap();
    let request = post(&target, Body::stream(Chunks(body)));
    assert_eq!(fetch(&target, request).await, "POST /some");
    server.until(|seen| seen.closed == 1).await;
    assert_eq!(fetch(&target, get("/other")).await, "GET /other");
    assert_eq!(server.seen().accepted, 2);
}

#[tokio::test]
async fn a_body_that_fails_fails_its_request() {
    struct Failing;
    impl http_body::Body for Failing {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            std::task::Poll::Ready(Some(Err(std::io::Error::other("the reader failed"))))
        }
    }
    let server = Server::http().await;
    let target = target(&server.url("/echo"));
    let error = target
        .send(post(&target, Body::stream(Failing)), late())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Request { .. }), "{error:?}");
    server.until(|seen| seen.closed == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_take_turns_on_the_connections_that_there_may_be() {
    let server = Server::http().await;
    let target = limited(&server.url("/gate"), 4);
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let target = target.clone();
        callers.spawn(async move { fetch(&target, get("/gate")).await });
    }
    server.until(|seen| seen.in_flight == 4).await;
    server.gate.add_permits(100);
    while let Some(answer) = callers.join_next().await {
        assert_eq!(answer.unwrap(), "through");
    }
    let seen = server.seen();
    assert_eq!((seen.requests, seen.most_in_flight), (100, 4));
    assert!(seen.accepted <= 4, "{seen:?}");
}

#[tokio::test]
async fn who_waits_for_a_connection_waits_until_the_deadline_and_has_sent_nothing() {
    let server = Server::http().await;
    let target = limited(&server.url("/chunks"), 1);
    let mut listening = target.send(get("/chunks"), late()).await.unwrap();
    let error = target.send(get("/some"), soon()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                stage: Stage::Queueing,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.was_sent());
    assert_eq!(server.seen().requests, 1);
    // A listener that says that it will stay makes room.
    listening.body.detach();
    assert_eq!(fetch(&target, get("/some")).await, "GET /some");
    drop(listening);
    server.until(|seen| seen.closed == 1).await;
    // Its end does not make room a second time.
    let _first = target.send(get("/big?100000"), late()).await.unwrap();
    let error = target.send(get("/some"), soon()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                stage: Stage::Queueing,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn one_task_can_wait_for_more_answers_than_its_cooperative_budget() {
    let server = Server::http().await;
    let target = target(&server.url("/gate"));
    let mut waiting: Vec<_> = (0..300)
        .map(|_| Box::pin(fetch(&target, get("/gate"))))
        .collect();
    let all = std::future::poll_fn(|cx| {
        waiting.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if waiting.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    let opened = async {
        server.until(|seen| seen.in_flight == 300).await;
        server.gate.add_permits(300);
    };
    timeout(PATIENCE, async { tokio::join!(all, opened) })
        .await
        .unwrap();
    assert_eq!(server.seen().requests, 300);
}

#[tokio::test]
async fn a_body_whose_length_is_known_needs_no_look_beyond_its_end() {
    let server = Server::http().await;
    let target = target(&server.url("/some"));
    for _ in 0..3 {
        let mut reply = target.send(get("/some"), late()).await.unwrap();
        assert!(!reply.body.is_end_stream());
        assert_eq!(
            reply
                .body
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap(),
            "GET /some"
        );
        assert!(reply.body.is_end_stream());
    }
    assert_eq!(server.seen().accepted, 1);
}

#[tokio::test]
async fn a_detached_connection_is_closed_at_its_end() {
    let server = Server::http().await;
    let target = target(&server.url("/some"));
    let mut reply = target.send(get("/some"), late()).await.unwrap();
    reply.body.detach();
    assert_eq!(reply.body.collect(100, late()).await.unwrap(), "GET /some");
    assert_eq!(target.idle(), 0);
    server.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_does_not_wait_for_its_time_to_go() {
    let (close, closing) = oneshot::channel::<()>();
    let (closed, is_closed) = oneshot::channel::<()>();
    let script = parking_lot::Mutex::new(Some((closing, closed)));
    let (url, _server) = raw(move |_, mut stream| {
        let (closing, closed) = script.lock().take().expect("one connection");
        async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            closing.await.unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    })
    .await;
    let target = target(&url);
    target.send(get("/"), late()).await.unwrap();
    target.sweep();
    assert_eq!(target.idle(), 1);
    close.send(()).unwrap();
    is_closed.await.unwrap();
    let_the_reactor_look().await;
    target.sweep();
    assert_eq!(target.idle(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_on_two_threads_get_their_own_answers() {
    let server = Server::http().await;
    let target = limited(&server.url("/echo"), 8);
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let target = target.clone();
        callers.spawn(async move {
            for number in 0..100 {
                let body = Bytes::from(format!("{caller}/{number}").repeat(1 + number * 20));
                assert_eq!(fetch(&target, post(&target, body.clone())).await, body);
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert_eq!(server.seen().requests, 1_600);
    assert!(server.seen().accepted <= 8, "{:?}", server.seen());
}

#[tokio::test]
async fn unused_connections_are_closed_in_time_and_at_most_so_many_are_kept() {
    let server = Server::http().await;
    let config = Config {
        idle_timeout: Duration::from_millis(60),
        max_idle_per_origin: 2,
        ..Config::default()
    };
    let target = egress(config).origin(&server.url("/gate")).unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..5 {
        let target = target.clone();
        callers.spawn(async move { fetch(&target, get("/gate")).await });
    }
    server.until(|seen| seen.in_flight == 5).await;
    server.gate.add_permits(5);
    while let Some(answer) = callers.join_next().await {
        answer.unwrap();
    }
    assert!(target.idle() <= 2);
    server.until(|seen| seen.closed == 5).await;
    assert_eq!(target.idle(), 0);
}

#[tokio::test]
async fn connections_close_with_the_last_handle() {
    let server = Server::http().await;
    let egress = egress(Config::default());
    let target = egress.origin(&server.url("/some")).unwrap();
    let copy = target.clone();
    fetch(&copy, get("/some")).await;
    drop((egress, copy));
    fetch(&target, get("/some")).await;
    assert_eq!((server.seen().accepted, server.seen().closed), (1, 0));
    drop(target);
    server.until(|seen| seen.closed == 1).await;
}

/// A TLS server for `names`, and the certificate that vouches for it.
async fn secure(names: &[&str]) -> (Server, Roots) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::start("https", move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await.ok() }
    })
    .await;
    (server, Roots::Only(vec![cert.der().clone()]))
}

#[tokio::test]
async fn encrypted_connections_are_kept_too() {
    let (server, roots) = secure(&["localhost"]).await;
    let target = egress(Config {
        roots,
        ..Config::default()
    })
    .origin(&server.url("/echo"))
    .unwrap();
    for size in [1, 1_000_000, 10] {
        let body = Bytes::from(vec![b'a'; size]);
        assert_eq!(fetch(&target, post(&target, body.clone())).await, body);
    }
    assert_eq!(server.seen().accepted, 1);
}

#[tokio::test]
async fn what_is_there_can_be_looked_at() {
    let (secure, roots) = secure(&["localhost"]).await;
    let plain = Server::http().await;
    let egress = egress(Config {
        roots,
        ..Config::default()
    });
    let end = egress.certificate_end(&secure.url("/"), late()).await;
    // What `rcgen` writes when nothing is said.
    assert_eq!(
        end.unwrap().unwrap().to_string(),
        "4096-01-01T00:00:00.000Z"
    );
    let end = egress.certificate_end(&plain.url("/"), late()).await;
    assert_eq!(end.unwrap(), None);
    for (server, path, status) in [(&secure, "/some", 200), (&plain, "/empty", 204)] {
        let found = egress.status(&server.url(path), late()).await.unwrap();
        assert_eq!(found, status);
    }
}

#[tokio::test]
async fn certificates_of_strangers_and_for_other_names_are_refused() {
    let (server, roots) = secure(&["localhost"]).await;
    let (other, strangers) = secure(&["elsewhere.example"]).await;
    let cases = [
        (&server, strangers.clone()),
        (&other, strangers),
        (&other, roots),
    ];
    for (server, roots) in cases {
        let target = egress(Config {
            roots,
            ..Config::default()
        })
        .origin(&server.url("/"))
        .unwrap();
        let error = target.send(get("/"), late()).await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert!(!error.was_sent());
    }
}

#[tokio::test]
async fn a_root_certificate_that_is_none_is_refused_at_once() {
    let roots = Roots::SystemAnd(vec![vec![1, 2, 3].into()]);
    let error = Egress::new(Config {
        roots,
        ..Config::default()
    })
    .unwrap_err();
    assert!(
        error.to_string().contains("certificate 1 is unusable"),
        "{error}"
    );
}

#[tokio::test]
async fn a_port_where_nobody_listens_and_a_name_that_nobody_has_are_told_apart() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    for host in ["127.0.0.1", "localhost"] {
        let url: Url = format!("http://{host}:{}/", address.port())
            .parse()
            .unwrap();
        let error = target(&url).send(get("/"), late()).await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        assert!(!error.was_sent());
        assert_eq!(Failure::from(error).kind, Kind::UpstreamUnavailable);
    }
    // No resolver takes a label of over 63 characters, so none asks the network for it.
    let url: Url = format!("http://{}.example/", "a".repeat(64))
        .parse()
        .unwrap();
    let error = target(&url).send(get("/"), late()).await.unwrap_err();
    assert!(matches!(error, Error::Dns { .. }), "{error:?}");
    assert!(!error.was_sent());
}

#[tokio::test]
async fn the_policy_judges_what_a_name_resolves_to() {
    let server = Server::http().await;
    let egress = egress(Config {
        allow: Policy::Any.outside(),
        ..Config::default()
    });
    for url in [
        server.url("/"),
        format!("http://{}/", server.address).parse().unwrap(),
    ] {
        let error = egress
            .origin(&url)
            .unwrap()
            .send(get("/"), late())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert_eq!(Failure::from(error).kind, Kind::NotPermitted);
    }
    assert_eq!(server.seen().accepted, 0);
}

/// Permitted, then not: two addresses of this machine, so that both could be connected to.
static REBOUND: AtomicUsize = AtomicUsize::new(0);

fn rebound(_: &str) -> Vec<IpAddr> {
    let last = [1, 2][REBOUND.fetch_add(1, Ordering::SeqCst).min(1)];
    vec![Ipv4Addr::new(127, 0, 0, last).into()]
}

#[tokio::test]
async fn a_name_that_changes_its_mind_between_the_check_and_the_use_leads_nowhere_else() {
    let server = Server::http().await;
    let port = server.address.port();
    let forbidden = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
    forbidden.set_nonblocking(true).unwrap();
    let permitted = "127.0.0.1".parse::<Network>().unwrap();
    let egress = egress(Config {
        allow: Policy::Public(Networks::new([permitted])),
        names: Some(rebound),
        max_idle_per_origin: 0,
        ..Config::default()
    });
    let url: Url = format!("http://rebound.example:{port}/").parse().unwrap();
    let target = egress.origin(&url).unwrap();
    // The name is asked once per connection: what was judged is what is connected to.
    fetch(&target, get("/some")).await;
    assert_eq!(
        (REBOUND.load(Ordering::SeqCst), server.seen().accepted),
        (1, 1)
    );
    // The next connection asks again, and the other answer is judged, too.
    let error = target.send(get("/some"), late()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let error = egress.connect(&url, late()).await.err().unwrap();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let error = egress.status(&url, late()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(REBOUND.load(Ordering::SeqCst), 4);
    assert!(forbidden.accept().is_err(), "it was connected to");
}

#[tokio::test]
async fn no_notation_of_a_metadata_address_gets_by_either_policy() {
    let local = ["loopback", "private", "169.254.0.0/16", "fd00::/8"];
    let local = || Networks::new(local.map(|text| text.parse::<Network>().unwrap()));
    for allow in [Policy::Inside(local()), Policy::Public(local())] {
        let egress = egress(Config {
            allow,
            ..Config::default()
        });
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "0xA9.0xFE.0xA9.0xFE",
            "0251.0376.0251.0376",
            "169.254.43518",
            "%31%36%39.254.169.254",
            "\u{ff11}\u{ff16}\u{ff19}.254.169.254",
            "169。254。169。254",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "168.63.129.16",
            "100.100.100.200",
        ] {
            let url: Url = format!("http://{host}/latest/meta-data").parse().unwrap();
            let target = egress.origin(&url).unwrap();
            let error = target.send(get("/"), late()).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{host}: {error:?}");
            let error = egress.status(&url, late()).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{host}: {error:?}");
        }
    }
}

#[tokio::test]
async fn urls_that_cannot_be_used_say_why_and_hide_their_passwords() {
    let egress = egress(Config::default());
    for (url, reason) in [
        ("ftp://host/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("data:text/plain,hello", "http://"),
        ("http://user:hunter2@host/", "header"),
        ("http://user@host/", "header"),
    ] {
        let error = egress.origin(&url.parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::BadUrl { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}

#[tokio::test]
async fn origins_say_where_requests_go() {
    for (url, text, host, port) in [
        (
            "http://Host.Example/x",
            "http://host.example",
            "host.example",
            80,
        ),
        ("https://host:443/", "https://host", "host", 443),
        ("https://host:8443/", "https://host:8443", "host", 8443),
        ("http://[::1]:3010/", "http://[::1]:3010", "[::1]", 3010),
        ("http://127.1/", "http://127.0.0.1", "127.0.0.1", 80),
    ] {
        let target = target(&url.parse().unwrap());
        let origin = target.origin();
        assert_eq!(
            (&**origin.text(), origin.host(), origin.port()),
            (text, host, port)
        );
    }
}
