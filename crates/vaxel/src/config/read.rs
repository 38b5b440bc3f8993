//! One function per section of the configuration. The bounds stand in the manual, too; a test holds
//! the two against each other.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use tracing_subscriber::EnvFilter;
use url::Url;
use vaxel_api::MetricsAccess;
use vaxel_auth::{jwks::KeySet, web::WebRules};
use vaxel_control::HealthConfig;
use vaxel_core::{
    backoff::Backoff,
    fields::Fields,
    health::spec::Rules,
    name::RoleName,
    quantity::{Size, Span},
    quota::{Quota, RoleQuotas},
    role::BuiltIn,
    secret::Secret,
};
use vaxel_egress::{Networks, Policy};
use vaxel_gateway::{BreakerRules, Keep, Tunables};
use vaxel_store::{DatabaseUrl, InvalidUrl};

use super::{Config, LogFormat, Logs, Process, Records, Server};
use crate::certificate::{self, Pair};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every section is read, so that a problem in one hides none in another.
pub(super) fn config(fields: &mut Fields<'_>, data_dir: &Path) -> Option<Config> {
    let mut gateway = vaxel_gateway::Config::default();
    let mut egress = vaxel_egress::Config::default();
    let server = fields.nested("server", |fields| server(fields, &mut gateway));
    let tls = fields.nested("tls", |fields| tls(fields, data_dir));
    fields.nested("limits", |fields| limits(fields, &mut gateway));
    let calls = fields.nested("calls", |fields| calls(fields, &mut gateway));
    let catalog_ttl = fields.nested("upstream", |fields| {
        upstream(fields, &mut gateway, &mut egress)
    });
    let process = fields.nested("process", process);
    let root_key_command = fields.nested("secrets", root_key_command);
    let tokens = fields.nested("tokens", tokens);
    let oauth = fields.nested("oauth", |fields| oauth(fields, &mut gateway));
    let callers = fields.nested("callers", callers);
    let health = fields.nested("health", health);
    let store = fields.nested("store", |fields| store(fields, data_dir));
    let records = fields.nested("records", records);
    let feed = fields.nested("feed", feed);
    let audit = fields.nested("audit", audit);
    let logs = fields.nested("logs", logs);
    let metrics = fields.nested("metrics", metrics);
    let (server, rules, hosts) = server.flatten()?;
    let tls = tls?.map(|tls| match tls {
        Tls::SelfSigned => Pair::self_signed(data_dir, certificate::names_of(&server, &hosts)),
        Tls::Files(pair) => pair,
    });
    let calls = calls?;
    let (records, kept) = records?;
    let (store, archive) = store?;
    let tunables = Tunables {
        call_timeout: calls.timeout,
        concurrency: calls.concurrency,
        breaker: calls.breaker,
        records: kept.enabled,
        keep: kept.what,
        keep_max: kept.max,
        ..Tunables::new(rules)
    };
    Some(Config {
        data_dir: data_dir.to_owned(),
        server,
        tls,
        gateway,
        tunables,
        egress,
        process: process?,
        root_key_command: root_key_command?,
        tokens: tokens?,
        oauth: oauth?,
        callers: callers?,
        health: health?,
        store,
        archive,
        records,
        feed: feed?,
        audit: audit?,
        logs: logs?,
        metrics: metrics?,
        catalog_ttl: catalog_ttl?,
    })
}

fn server(
    fields: &mut Fields<'_>,
    gateway: &mut vaxel_gateway::Config,
) -> Option<(Server, WebRules, Vec<String>)> {
    let listen: Option<SocketAddr> = fields.string("listen").and_then(|text| {
        let parsed = text.parse();
        if parsed.is_err() {
            let message = format!("`{text}` is not an address and port such as 127.0.0.1:3010");
            fields.issue("listen", message);
        }
        parsed.ok()
    });
    gateway.auth = fields.boolean("auth").unwrap_or(true);
    if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback() && !gateway.auth) {
        let message = format!(
            "without authentication only loopback is served, not {listen}: set server.auth = true, \
             or listen at 127.0.0.1"
        );
        fields.issue("auth", message);
    }
    let public_url = public_url(fields);
    gateway.public_url.clone_from(&public_url);
    gateway.shutdown_grace = span(fields, "shutdown_grace", Duration::ZERO..=HOUR);
    let workers = count(fields, "workers", 0..=1_024);
    // Hosts and origins are checked also when the address is wrong; any address will do for that.
    let at = listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    let (rules, hosts) = web_rules(fields, at)?;
    Some((
        Server {
            listen: listen?,
            public_url,
            workers,
        },
        rules,
        hosts,
    ))
}

/// `[tls]`
enum Tls {
    SelfSigned,
    Files(Pair),
}

fn tls(fields: &mut Fields<'_>, data_dir: &Path) -> Option<Tls> {
    let cert = fields.string("cert").unwrap_or_default();
    let key = fields.string("key").unwrap_or_default();
    match (cert.as_str(), key.as_str()) {
        ("", "") => None,
        ("self-signed", "") => Some(Tls::SelfSigned),
        ("self-signed", _) => {
            let message = "must be empty: Vaxel makes the key of a self-signed certificate";
            fields.issue("key", message);
            None
        }
        (_, "") => {
            fields.issue("key", "is missing: the file with the key of tls.cert");
            None
        }
        ("", _) => {
            fields.issue(
                "cert",
                "is missing: the file with the certificate of tls.key",
            );
            None
        }
        (cert, key) => Some(Tls::Files(Pair {
            cert: data_dir.join(cert),
            key: data_dir.join(key),
            made_for: None,
        })),
    }
}

fn public_url(fields: &mut Fields<'_>) -> Option<String> {
    let text = fields
        .string("public_url")
        .filter(|text| !text.is_empty())?;
    let is_base = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
    };
    if Url::parse(&text).is_ok_and(|url| is_base(&url)) {
        return Some(text.trim_end_matches('/').to_owned());
    }
    let message = format!("`{text}` is not a URL such as https://vaxel.example.com");
    fields.issue("public_url", message);
    None
}

/// Rules for Host and Origin headers, and the hosts among them; a problem is told at the key that holds the
/// entry.
fn web_rules(fields: &mut Fields<'_>, listen: SocketAddr) -> Option<(WebRules, Vec<String>)> {
    let hosts = fields.strings("allowed_hosts").unwrap_or_default();
    let origins = fields.strings("allowed_origins").unwrap_or_default();
    let mut is_fine = true;
    for (key, entries) in [("allowed_hosts", &hosts), ("allowed_origins", &origins)] {
        for issue in WebRules::new(listen, entries).err().into_iter().flatten() {
            is_fine = false;
            fields.issue(&format!("{key}{}", issue.path), issue.message);
        }
    }
    let all: Vec<String> = hosts.iter().cloned().chain(origins).collect();
    let rules = WebRules::new(listen, &all).ok().filter(|_| is_fine)?;
    Some((rules, hosts))
}

fn limits(fields: &mut Fields<'_>, gateway: &mut vaxel_gateway::Config) {
    gateway.body_max = size(fields, "body", KIB..=GIB);
    gateway.body_timeout = span(fields, "body_timeout", SECOND..=HOUR);
    gateway.head_max = size(fields, "headers", 8 * KIB..=MIB);
    gateway.head_timeout = span(fields, "header_timeout", SECOND..=HOUR);
    gateway.connections_max = count(fields, "connections", 1..=1_000_000);
    gateway.connections_per_address = count(fields, "connections_per_address", 0..=1_000_000);
    gateway.connections_exempt = networks(fields, "connections_exempt");
    gateway.response_max = size(fields, "response", KIB..=GIB);
    gateway.line_max = size(fields, "stdio_line", KIB..=GIB);
    gateway.sessions_max = count(fields, "sessions", 1..=10_000_000);
    gateway.session_idle = span(fields, "session_idle", SECOND..=365 * DAY);
    gateway.streams_max = count(fields, "streams", 1..=1_000_000);
}

/// What may change of the rules for calls while they are served.
struct Calls {
    timeout: Duration,
    concurrency: u32,
    breaker: BreakerRules,
}

fn calls(fields: &mut Fields<'_>, gateway: &mut vaxel_gateway::Config) -> Calls {
    gateway.name_max = count(fields, "name_max", 24..=128);
    gateway.answer_wait = span(fields, "answer_wait", SECOND..=DAY);
    gateway.parked_max = count(fields, "parked", 0..=1_000_000);
    gateway.parked_per_caller = count(fields, "parked_per_caller", 0..=1_000_000);
    gateway.start_wait = span(fields, "start_wait", Duration::ZERO..=HOUR);
    gateway.page_size = count(fields, "page_size", 1..=10_000);
    let concurrency = count(fields, "concurrency", 1..=1_000_000);
    let failures = count(fields, "breaker_failures", 0..=1_000_000);
    Calls {
        timeout: span(fields, "timeout", 10 * MS..=DAY),
        concurrency: u32::try_from(concurrency).unwrap_or(u32::MAX),
        breaker: BreakerRules {
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
            pause: span(fields, "breaker_pause", 10 * MS..=DAY),
        },
    }
}

/// How long a catalog holds; the rest goes where it belongs.
fn upstream(
    fields: &mut Fields<'_>,
    gateway: &mut vaxel_gateway::Config,
    egress: &mut vaxel_egress::Config,
) -> Duration {
    egress.connect_timeout = span(fields, "connect_timeout", 10 * MS..=HOUR);
    gateway.probe_timeout = span(fields, "probe_timeout", 10 * MS..=HOUR);
    gateway.era_recheck = span(fields, "era_recheck", SECOND..=365 * DAY);
    gateway.upstream_idle = span(fields, "session_idle", SECOND..=365 * DAY);
    egress.idle_timeout = span(fields, "idle_timeout", 10 * MS..=DAY);
    egress.max_connections_per_origin = count(fields, "connections", 1..=100_000);
    egress.allow = Policy::Inside(networks(fields, "networks"));
    gateway.catalog_items_max = count(fields, "catalog_items", 1..=1_000_000);
    span(fields, "catalog_ttl", SECOND..=365 * DAY)
}

/// Addresses and networks.
fn networks(fields: &mut Fields<'_>, key: &'static str) -> Networks {
    let texts = fields.strings(key).unwrap_or_default();
    let mut all = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(network) => all.push(network),
            Err(error) => {
                let error: vaxel_egress::InvalidNetwork = error;
                let message = format!("`{text}` is no network: {error}");
                fields.issue(&format!("{key}[{index}]"), message);
            }
        }
    }
    Networks::new(all)
}

fn process(fields: &mut Fields<'_>) -> Process {
    let max_retries = count(fields, "max_retries", 0..=1_000_000);
    Process {
        start_timeout: span(fields, "start_timeout", SECOND..=HOUR),
        stop_grace: span(fields, "stop_grace", Duration::ZERO..=HOUR),
        auto_restart: fields.boolean("auto_restart").unwrap_or(true),
        backoff: Backoff {
            initial: span(fields, "backoff_initial", MS..=DAY),
            max: span(fields, "backoff_max", MS..=DAY),
            reset_after: span(fields, "backoff_reset", Duration::ZERO..=DAY),
            max_retries: u32::try_from(max_retries).unwrap_or(u32::MAX),
        },
        health_interval: span(fields, "health_interval", 100 * MS..=DAY),
        dependency_wait: span(fields, "dependency_wait", Duration::ZERO..=HOUR),
    }
}

/// A program and its arguments.
fn root_key_command(fields: &mut Fields<'_>) -> Vec<String> {
    let command = fields.strings("root_key_command").unwrap_or_default();
    if command.first().is_some_and(String::is_empty) {
        fields.issue("root_key_command", "names no program");
    }
    command
}

fn tokens(fields: &mut Fields<'_>) -> vaxel_control::TokensConfig {
    vaxel_control::TokensConfig {
        algorithm: fields.parsed("algorithm").unwrap_or_default(),
        rotation: span(fields, "rotation", HOUR..=3_650 * DAY),
        sign_in: span(fields, "sign_in", HOUR..=3_650 * DAY),
    }
}

fn oauth(
    fields: &mut Fields<'_>,
    gateway: &mut vaxel_gateway::Config,
) -> vaxel_control::OauthConfig {
    gateway.oauth = fields.boolean("enabled").unwrap_or(true);
    vaxel_control::OauthConfig {
        enabled: gateway.oauth,
        registration: fields.boolean("registration").unwrap_or(true),
        issuer: issuer(fields),
    }
}

/// Another authorization server; `None` where there is no address.
fn issuer(fields: &mut Fields<'_>) -> Option<vaxel_control::IssuerConfig> {
    let user_claim = fields.string("user_claim").unwrap_or_default();
    let roles_claim = fields.string("roles_claim").filter(|text| !text.is_empty());
    let roles = roles_of_words(fields);
    let secret = fields.string("issuer_secret");
    let secret = secret.filter(|text| !text.is_empty()).map(Secret::new);
    if let Some(Err(error)) = secret.as_ref().map(KeySet::of_secret) {
        fields.issue("issuer_secret", error.to_string());
    }
    let url = fields.string("issuer").filter(|text| !text.is_empty())?;
    if !Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        let message = format!("`{url}` is not a URL such as https://login.example.com");
        fields.issue("issuer", message);
    }
    if user_claim.is_empty() {
        fields.issue("user_claim", "names no claim, such as email");
    }
    if roles_claim.is_none() && !roles.is_empty() {
        fields.issue(
            "roles",
            "need `roles_claim`, which says where the words stand",
        );
    }
    Some(vaxel_control::IssuerConfig {
        url,
        user_claim,
        roles_claim,
        roles,
        secret,
    })
}

/// Texts such as `staff=client`: what another server's words for roles mean here.
fn roles_of_words(fields: &mut Fields<'_>) -> HashMap<String, RoleName> {
    let mut all = HashMap::new();
    let texts = fields.strings("roles").unwrap_or_default();
    for (index, text) in texts.iter().enumerate() {
        let read = text.rsplit_once('=').and_then(|(word, role)| {
            let role = role.trim().parse::<RoleName>().ok()?;
            Some((word.trim(), role)).filter(|(word, _)| !word.is_empty())
        });
        let Some((word, role)) = read else {
            let message = format!("`{text}` is not what a word means, such as staff=client");
            fields.issue(&format!("roles[{index}]"), message);
            continue;
        };
        if all.insert(word.to_owned(), role).is_some() {
            let message = format!("`{word}` has a meaning already");
            fields.issue(&format!("roles[{index}]"), message);
        }
    }
    all
}

/// How much users with each built-in role may take.
fn callers(fields: &mut Fields<'_>) -> RoleQuotas {
    RoleQuotas(BuiltIn::ALL.map(|role| {
        let key = role.as_str();
        let texts = fields.strings(key).unwrap_or_default();
        let wrong = |index, message| fields.issue(&format!("{key}[{index}]"), message);
        (role, Quota::of_texts(&texts, wrong))
    }))
}

fn health(fields: &mut Fields<'_>) -> HealthConfig {
    let times = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    HealthConfig {
        rules: Rules {
            timeout: span(fields, "timeout", 10 * MS..=10 * MINUTE),
            rise: times(count(fields, "rise", 1..=100)),
            fall: times(count(fields, "fall", 1..=100)),
            budget: times(count(fields, "recovery_budget", 0..=1_000)),
            window: span(fields, "recovery_window", SECOND..=7 * DAY),
            backoff: span(fields, "recovery_backoff", Duration::ZERO..=DAY),
            ..Rules::default()
        },
        checks_at_once: count(fields, "checks_at_once", 1..=10_000),
        retention: span(fields, "retention", HOUR..=3_650 * DAY),
        lease: Some(span(fields, "lease", Duration::ZERO..=30 * DAY)).filter(|one| !one.is_zero()),
    }
}

/// The store, and after how long its archive forgets.
fn store(fields: &mut Fields<'_>, data_dir: &Path) -> (vaxel_store::Config, Option<Duration>) {
    let config = vaxel_store::Config {
        dir: data_dir.to_owned(),
        url: database_url(fields),
        queue: count(fields, "queue", 1..=1_000_000),
        readers: count(fields, "readers", 1..=64),
        write_timeout: span(fields, "write_timeout", 10 * MS..=HOUR),
    };
    let archive = span(fields, "archive", Duration::ZERO..=3_650 * DAY);
    (config, Some(archive).filter(|archive| !archive.is_zero()))
}

fn feed(fields: &mut Fields<'_>) -> vaxel_control::FeedConfig {
    vaxel_control::FeedConfig {
        readers: count(fields, "readers", 0..=1_000_000),
        retention: span(fields, "retention", MINUTE..=3_650 * DAY),
        max_rows: count(fields, "max_rows", 1..=1_000_000_000) as u64,
        ..vaxel_control::FeedConfig::default()
    }
}

fn audit(fields: &mut Fields<'_>) -> vaxel_control::AuditConfig {
    vaxel_control::AuditConfig {
        retention: span(fields, "retention", DAY..=36_500 * DAY),
    }
}

/// `None`: files in the data directory. A problem is told without the text, which holds a password.
fn database_url(fields: &mut Fields<'_>) -> Option<DatabaseUrl> {
    let text = fields.string("url").filter(|text| !text.is_empty())?;
    let parsed = text.parse();
    if let Err(error) = &parsed {
        let error: &InvalidUrl = error;
        fields.issue("url", error.to_string());
    }
    parsed.ok()
}

/// What records keep of calls.
struct Kept {
    enabled: bool,
    what: Keep,
    max: usize,
}

fn records(fields: &mut Fields<'_>) -> (Records, Kept) {
    let choices = [
        ("none", Keep::None),
        ("parameters", Keep::Parameters),
        ("all", Keep::All),
    ];
    let kept = Kept {
        enabled: fields.boolean("enabled").unwrap_or(true),
        what: choice(fields, "keep", &choices).unwrap_or(Keep::None),
        max: size(fields, "cap", 0..=16 * MIB),
    };
    let records = Records {
        seal: fields.boolean("seal").unwrap_or(false),
        queue: count(fields, "queue", 1..=10_000_000),
        retention: span(fields, "retention", MINUTE..=3_650 * DAY),
        max_rows: count(fields, "max_rows", 1..=1_000_000_000) as u64,
        hours: span(fields, "hours", DAY..=3_650 * DAY),
        days: span(fields, "days", DAY..=3_650 * DAY),
    };
    (records, kept)
}

fn logs(fields: &mut Fields<'_>) -> Logs {
    let formats = [
        ("auto", LogFormat::Auto),
        ("human", LogFormat::Human),
        ("json", LogFormat::Json),
    ];
    Logs {
        level: level(fields),
        format: choice(fields, "format", &formats).unwrap_or(LogFormat::Auto),
        line_max: size(fields, "line_max", 64..=MIB),
        file_max: size(fields, "file_max", 4 * KIB..=1_024 * GIB) as u64,
        files: u32::try_from(count(fields, "files", 0..=1_000)).unwrap_or(u32::MAX),
        tail: count(fields, "tail", 1..=100_000),
    }
}

/// A level, or a filter. A word alone would pass as the name of a crate, which nobody means.
fn level(fields: &mut Fields<'_>) -> String {
    const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
    let text = fields.string("level").unwrap_or_default();
    let is_known = LEVELS.contains(&text.to_ascii_lowercase().as_str());
    if !is_known && (!text.contains(['=', ',']) || EnvFilter::try_new(&text).is_err()) {
        let message = format!(
            "`{text}` is neither of {} nor a filter such as info,vaxel_gateway=debug",
            LEVELS.join(", ")
        );
        fields.issue("level", message);
    }
    text
}

fn metrics(fields: &mut Fields<'_>) -> MetricsAccess {
    let choices = [
        ("loopback", MetricsAccess::Loopback),
        ("key", MetricsAccess::Key),
        ("off", MetricsAccess::Off),
    ];
    choice(fields, "access", &choices).unwrap_or(MetricsAccess::Off)
}

/// One of several words.
fn choice<T: Copy>(fields: &mut Fields<'_>, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
    let text = fields.string(key)?;
    let found = choices.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        fields.issue(key, format!("`{text}` is none of {}", words.join(", ")));
    }
    found.map(|(_, value)| *value)
}

/// A duration.
fn span(fields: &mut Fields<'_>, key: &'static str, bounds: RangeInclusive<Duration>) -> Duration {
    let (low, high) = (Span(*bounds.start()), Span(*bounds.end()));
    let found = bounded(fields, key, low..=high);
    found.map_or(low.0, |span| span.0)
}

/// A number of bytes.
fn size(fields: &mut Fields<'_>, key: &'static str, bounds: RangeInclusive<u64>) -> usize {
    let (low, high) = (Size(*bounds.start()), Size(*bounds.end()));
    let found = bounded(fields, key, low..=high).unwrap_or(low);
    usize::try_from(found.0).unwrap_or(usize::MAX)
}

/// A count.
fn count(fields: &mut Fields<'_>, key: &'static str, bounds: RangeInclusive<u64>) -> usize {
    let low = *bounds.start();
    let found = fields.integer(key, bounds).unwrap_or(low);
    usize::try_from(found).unwrap_or(usize::MAX)
}

fn bounded<T>(fields: &mut Fields<'_>, key: &'static str, bounds: RangeInclusive<T>) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display> + std::fmt::Display + PartialOrd,
{
    let found = fields.parsed::<T>(key)?;
    if bounds.contains(&found) {
        return Some(found);
    }
    let (low, high) = (bounds.start(), bounds.end());
    fields.issue(key, format!("{found} is not between {low} and {high}"));
    None
}
