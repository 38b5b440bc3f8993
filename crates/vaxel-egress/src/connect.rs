//! From an origin to an open byte stream: resolve, judge, race the addresses, encrypt.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    config::Config,
    failure::{Error, Stage},
    policy::{Policy, Reach},
    stream::Stream,
    target::Origin,
    tls::Tls,
};

/// Head start of one address before the next one is tried as well (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Opens byte streams.
#[derive(Debug)]
pub(crate) struct Connector {
    timeout: Duration,
    allow: Policy,
    tls: Tls,
    #[cfg(test)]
    names: Option<fn(&str) -> Vec<IpAddr>>,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        let tls = Tls::new(config.roots)?;
        Ok(Self {
            timeout: config.connect_timeout,
            allow: config.allow,
            tls,
            #[cfg(test)]
            names: config.names,
        })
    }

    /// Opens a stream to `origin` before `deadline` and within the connect timeout.
    pub(crate) async fn open(&self, origin: &Origin, deadline: Instant) -> Result<Stream, Error> {
        let deadline = deadline.min(Instant::now() + self.timeout);
        match timeout_at(deadline, self.open_unhurried(origin)).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::TimedOut {
                origin: Arc::clone(origin.text()),
                stage: Stage::Connecting,
            }),
        }
    }

    async fn open_unhurried(&self, origin: &Origin) -> Result<Stream, Error> {
        // Judged and connected to are the same addresses: the name is not asked for a second time.
        let addresses = self.permitted(origin, self.resolved(origin).await?)?;
        let failed = |reason| Error::Connect {
            origin: Arc::clone(origin.text()),
            reason,
        };
        let stream = dial(addresses).await.map_err(failed)?;
        // A request is written at once and its answer is waited for: waiting for more to send
        // (Nagle) would only add the peer's delayed acknowledgement to every call.
        stream.set_nodelay(true).map_err(failed)?;
        if origin.is_secure() {
            let stream = self.tls.wrap(origin, stream).await?;
            Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
        } else {
            Ok(Stream::Plain(TokioIo::new(stream)))
        }
    }

    async fn resolved(&self, origin: &Origin) -> Result<Vec<IpAddr>, Error> {
        #[cfg(test)]
        if let Some(names) = self.names {
            return Ok(names(origin.host()));
        }
        resolve(origin).await
    }

    /// The addresses that the policy permits; an error when it permits none of them.
    fn permitted(&self, origin: &Origin, all: Vec<IpAddr>) -> Result<Vec<SocketAddr>, Error> {
        let first = all.first().copied();
        let permitted: Vec<_> = all
            .into_iter()
            .filter(|address| self.allow.permits(*address))
            .map(|address| SocketAddr::new(address, origin.port()))
            .collect();
        match first {
            Some(address) if permitted.is_empty() => Err(Error::Refused {
                origin: Arc::clone(origin.text()),
                address,
                reach: Reach::of(address),
            }),
            _ => Ok(permitted),
        }
    }
}

async fn resolve(origin: &Origin) -> Result<Vec<IpAddr>, Error> {
    if let Some(address) = origin.address() {
        return Ok(vec![address]);
    }
    let failed = |source| Error::Dns {
        origin: Arc::clone(origin.text()),
        source,
    };
    let found = lookup_host((origin.host(), origin.port()))
        .await
        .map_err(failed)?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        return Err(failed(io::Error::other("the name has no address")));
    }
    Ok(alternate(addresses))
}

/// Families take turns, the first one stays first (RFC 8305 §4), so that a machine with one broken
/// family waits for one address only.
fn alternate(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let v6_first = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == v6_first);
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return mixed,
            (one, other) => mixed.extend(one.into_iter().chain(other)),
        }
    }
}

/// Connects to the first address that answers; each one gets a head start over the next.
async fn dial(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    if let [address] = addresses[..] {
        return TcpStream::connect(address).await;
    }
    let mut waiting = addresses.into_iter();
    let mut running = JoinSet::new();
    let mut failure = io::Error::other("the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            running.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => failure = error,
                Some(Err(error)) => failure = io::Error::other(error),
                None => return Err(failure),
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns() {
        let parse = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = parse(&["::1", "::2", "::3", "1.1.1.1"]);
        assert_eq!(alternate(given), parse(&["::1", "1.1.1.1", "::2", "::3"]));
        let given = parse(&["1.1.1.1", "::1", "2.2.2.2"]);
        assert_eq!(alternate(given), parse(&["1.1.1.1", "::1", "2.2.2.2"]));
    }
}
