//! The certificate of the listener: read from its files or made here, looked at again while Vaxel runs, and
//! replaced when they change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::interval};
use vaxel_core::time::{Clock, Timestamp};
use vaxel_gateway::{
    Gateway,
    tls::{self, Certificate, CertificateFacts},
};
use zeroize::Zeroizing;

use crate::wire::write_private;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);
/// A certificate of our own is made anew so long before it ends.
const RENEW: Duration = Duration::from_hours(30 * 24);
/// Of one that ends so soon the log says so every day.
const SOON: Duration = Duration::from_hours(14 * 24);
const DAY: Duration = Duration::from_hours(24);

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The chain (PEM).
    pub(crate) cert: PathBuf,
    /// The key (PEM).
    pub(crate) key: PathBuf,
    /// It is made here, for these hosts and addresses.
    pub(crate) made_for: Option<Vec<String>>,
}

impl Pair {
    /// The files of the certificate that Vaxel makes for itself.
    pub(crate) fn self_signed(data_dir: &Path, names: Vec<String>) -> Self {
        Self {
            cert: data_dir.join("self-signed.crt"),
            key: data_dir.join("self-signed.key"),
            made_for: Some(names),
        }
    }

    /// The certificate for the start, made first where that is due.
    pub(crate) fn open(&self, now: Timestamp) -> anyhow::Result<Certificate> {
        self.renew(now)?;
        self.read(now).map_err(|problems| {
            anyhow::anyhow!(
                "TLS cannot be used:\n  {}\nThe files are tls.cert and tls.key in the configuration",
                problems.join("\n  ")
            )
        })
    }

    /// Reads the two files, which must fit. Every problem is told.
    pub(crate) fn read(&self, now: Timestamp) -> Result<Certificate, Vec<String>> {
        let mut problems = Vec::new();
        let mut file = |path: &Path, what: &str| {
            let read = std::fs::read(path).map(Zeroizing::new);
            read.map_err(|error| {
                problems.push(format!(
                    "the {what} {} cannot be read ({error})",
                    path.display()
                ));
            })
            .ok()
        };
        let (chain, key) = (
            file(&self.cert, "certificate"),
            file(&self.key, "certificate's key"),
        );
        let read = Certificate::read(
            chain.as_ref().map(|text| text.as_slice()),
            key.as_ref().map(|text| text.as_slice()),
            now,
        );
        let of_files = |mut told: Vec<String>| {
            problems.append(&mut told);
            std::mem::take(&mut problems)
        };
        read.map_err(of_files)
    }

    /// Makes our own certificate where there is none, where it ends soon, or where it lacks a name. True when
    /// one was made.
    fn renew(&self, now: Timestamp) -> anyhow::Result<bool> {
        let Some(names) = &self.made_for else {
            return Ok(false);
        };
        let is_good = self.read(now).is_ok_and(|certificate| {
            let facts = certificate.facts();
            facts.until > now.plus(RENEW) && names.iter().all(|name| facts.names.contains(name))
        });
        if is_good {
            return Ok(false);
        }
        let made = tls::make_self_signed(names, now).map_err(anyhow::Error::msg)?;
        write_private(&self.key, &made.key)?;
        write_private(&self.cert, &made.certificate)?;
        Ok(true)
    }

    /// What changes when somebody changes a file.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.cert, &self.key].map(|path| {
            let facts = std::fs::metadata(path).ok()?;
            Some((facts.modified().ok()?, facts.len()))
        })
    }
}

/// Looks at the files of the certificate for as long as Vaxel runs.
pub(crate) struct Watch {
    pub(crate) pair: Pair,
    pub(crate) gateway: Gateway,
    pub(crate) clock: Clock,
    /// Somebody asks for a look at once.
    pub(crate) now: Arc<Notify>,
}

impl Watch {
    /// `told` hears the fingerprints of what is shown from now on.
    pub(crate) async fn run(self, told: impl Fn(Vec<String>)) {
        let mut looks = interval(LOOK);
        let mut seen = self.pair.stamp();
        let (mut doubted, mut warned, mut parting) = (false, None, false);
        loop {
            let asked = tokio::select! {
                _ = looks.tick() => false,
                () = self.now.notified() => true,
            };
            let now = self.clock.now();
            if parting && !asked {
                // Nobody is in the middle of a handshake with the one before any more.
                parting = false;
                told(self.shown());
            }
            if let Err(error) = self.pair.renew(now) {
                self.refuse(format!("{error:#}"));
            }
            let stamp = self.pair.stamp();
            if asked || doubted || stamp != seen {
                // Two files are not replaced in one moment: what does not fit now may do so at the next look.
                let is_settled = asked || (doubted && stamp == seen);
                let replaced = self.replace(now, is_settled, &told);
                doubted = replaced.is_none() && !is_settled;
                if replaced == Some(true) {
                    parting = true;
                    looks.reset();
                }
                seen = stamp;
            }
            self.warn(now, &mut warned);
        }
    }

    /// Whether another certificate is shown from now on; `None` when the files are no good.
    fn replace(
        &self,
        now: Timestamp,
        is_settled: bool,
        told: &impl Fn(Vec<String>),
    ) -> Option<bool> {
        match self.pair.read(now) {
            Ok(certificate) => Some(self.show(certificate, told)),
            Err(problems) => {
                if is_settled {
                    self.refuse(problems.join("; "));
                }
                None
            }
        }
    }

    /// True when it is another one than before.
    fn show(&self, certificate: Certificate, told: &impl Fn(Vec<String>)) -> bool {
        let facts = certificate.facts().clone();
        let before = self.gateway.certificate().map(|before| before.facts);
        let before = before.filter(|before| *before != facts);
        if let Some(before) = &before {
            // Whoever connects meanwhile knows both.
            told(vec![facts.fingerprint.clone(), before.fingerprint.clone()]);
        }
        self.gateway.secure(certificate);
        if before.is_some() {
            tracing::info!(
                until = %facts.until,
                fingerprint = facts.fingerprint,
                "another certificate is shown from now on"
            );
        }
        before.is_some()
    }

    /// The fingerprint of what is shown.
    fn shown(&self) -> Vec<String> {
        let shown = self.gateway.certificate().into_iter();
        shown.map(|shown| shown.facts.fingerprint).collect()
    }

    fn refuse(&self, problem: String) {
        let is_new = self
            .gateway
            .certificate()
            .is_some_and(|shown| shown.problem.as_ref() != Some(&problem));
        if is_new {
            tracing::error!("the certificate is not replaced, the one before stays: {problem}");
        }
        self.gateway.note_certificate(Some(problem));
    }

    fn warn(&self, now: Timestamp, warned: &mut Option<Timestamp>) {
        let Some(shown) = self.gateway.certificate() else {
            return;
        };
        let is_due = warned.is_none_or(|warned| now.since(warned) >= DAY);
        if is_due && shown.facts.until < now.plus(SOON) {
            *warned = Some(now);
            tracing::warn!(
                "the certificate of the listener {}",
                ends(shown.facts.until, now)
            );
        }
    }
}

/// How long a certificate is good, as the end of a sentence.
pub(crate) fn ends(until: Timestamp, now: Timestamp) -> String {
    if until < now {
        return format!("expired at {until}");
    }
    let days = until.since(now).as_secs() / DAY.as_secs();
    format!("is good until {until}, {days} days from now")
}

/// The hosts and addresses that clients may know this server by.
pub(crate) fn names_of(server: &crate::config::Server, allowed_hosts: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    let node = rustix::system::uname();
    names.extend(node.nodename().to_str().map(str::to_ascii_lowercase).ok());
    let listen = server.listen.ip();
    if !listen.is_unspecified() {
        names.push(listen.to_canonical().to_string());
    }
    let configured = allowed_hosts.iter().chain(&server.public_url);
    names.extend(configured.filter_map(|text| host_of(text)));
    let mut seen = Vec::new();
    for name in names {
        let fits = |name: &str| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.:_".contains(&b))
        };
        if !name.is_empty() && fits(&name) && !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// The host in a URL, or in what a `Host` header says.
fn host_of(text: &str) -> Option<String> {
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = url::Url::parse(&url).ok()?;
    Some(url.host_str()?.trim_matches(['[', ']']).to_owned())
}

/// What the log and the terminal say of a certificate of our own.
pub(crate) fn shown(facts: &CertificateFacts) -> String {
    let bytes: Vec<&str> = facts
        .fingerprint
        .as_bytes()
        .chunks(2)
        .filter_map(|two| std::str::from_utf8(two).ok())
        .collect();
    bytes.join(":").to_uppercase()
}
