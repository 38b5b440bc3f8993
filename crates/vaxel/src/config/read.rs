//! One function per section of the configuration.

use std::{net::SocketAddr, path::Path, time::Duration};

use vaxel_api::MetricsAccess;
use vaxel_auth::web::WebRules;
use vaxel_core::{backoff::Backoff, fields::Fields};
use vaxel_gateway::{Keep, Tunables};

use super::{Config, LogFormat, Logs, Process, Records, Server, count, size, span, web_rules};

pub(super) fn config(fields: &mut Fields<'_>, data_dir: &Path) -> Option<Config> {
    let mut gateway = vaxel_gateway::Config::default();
    let server = fields
        .nested("server", |fields| server(fields, &mut gateway))
        .flatten();
    fields.nested("limits", |fields| limits(fields, &mut gateway));
    let (server, rules) = server?;
    let mut tunables = Tunables::new(rules);
    fields.nested("calls", |fields| calls(fields, &mut gateway, &mut tunables));
    let mut egress = vaxel_egress::Config::default();
    let catalog_ttl = fields.nested("upstream", |fields| {
        upstream(fields, &mut gateway, &mut egress)
    });
    let process = fields.nested("process", process);
    let store = fields.nested("store", |fields| store(fields, data_dir));
    let records = fields.nested("records", |fields| records(fields, &mut tunables));
    let logs = fields.nested("logs", logs);
    let metrics = fields.nested("metrics", metrics);
    Some(Config {
        data_dir: data_dir.to_owned(),
        server,
        gateway,
        tunables,
        egress,
        process: process?,
        store: store?,
        records: records?,
        logs: logs?,
        metrics: metrics?,
        catalog_ttl: catalog_ttl?,
    })
}

fn server(
    fields: &mut Fields<'_>,
    gateway: &mut vaxel_gateway::Config,
) -> Option<(Server, WebRules)> {
    let listen: Option<SocketAddr> = fields.string("listen").and_then(|text| {
        text.parse()
            .map_err(|_| {
                let message = format!("`{text}` is not an address and port such as 127.0.0.1:3010");
                fields.issue("listen", message);
            })
            .ok()
    });
    gateway.auth = fields.boolean("auth").unwrap_or(true);
    if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback() && !gateway.auth) {
        let message = format!(
            "without authentication only loopback is served, not {listen}: set server.auth = true, \
             or listen at 127.0.0.1"
        );
        fields.issue("auth", message);
    }
    let public_url = fields.string("public_url").filter(|url| !url.is_empty());
    let hosts = fields.strings("allowed_hosts").unwrap_or_default();
    let origins = fields.strings("allowed_origins").unwrap_or_default();
    gateway.shutdown_grace = span(fields, "shutdown_grace");
    let workers = count(fields, "workers", 0);
    let listen = listen?;
    let rules = web_rules(fields, listen, hosts, origins)?;
    Some((
        Server {
            listen,
            public_url,
            workers,
        },
        rules,
    ))
}

fn limits(fields: &mut Fields<'_>, gateway: &mut vaxel_gateway::Config) {
    gateway.body_max = size(fields, "body");
    gateway.body_timeout = span(fields, "body_timeout");
    gateway.head_max = size(fields, "headers");
    gateway.head_timeout = span(fields, "header_timeout");
    gateway.connections_max = count(fields, "connections", 1);
    gateway.response_max = size(fields, "response");
    gateway.line_max = size(fields, "stdio_line");
    gateway.sessions_max = count(fields, "sessions", 1);
    gateway.session_idle = span(fields, "session_idle");
    gateway.streams_max = count(fields, "streams", 1);
}

fn calls(fields: &mut Fields<'_>, gateway: &mut vaxel_gateway::Config, tunables: &mut Tunables) {
    tunables.call_timeout = span(fields, "timeout");
    tunables.concurrency = u32::try_from(count(fields, "concurrency", 1)).unwrap_or(u32::MAX);
    gateway.name_max = count(fields, "name_max", 24);
    gateway.page_size = count(fields, "page_size", 1);
}

fn upstream(
    fields: &mut Fields<'_>,
    gateway: &mut vaxel_gateway::Config,
    egress: &mut vaxel_egress::Config,
) -> Duration {
    egress.connect_timeout = span(fields, "connect_timeout");
    gateway.probe_timeout = span(fields, "probe_timeout");
    egress.idle_timeout = span(fields, "idle_timeout");
    egress.max_connections_per_origin = count(fields, "connections", 1);
    gateway.catalog_items_max = count(fields, "catalog_items", 1);
    span(fields, "catalog_ttl")
}

fn process(fields: &mut Fields<'_>) -> Process {
    Process {
        start_timeout: span(fields, "start_timeout"),
        stop_grace: span(fields, "stop_grace"),
        auto_restart: fields.boolean("auto_restart").unwrap_or(true),
        backoff: Backoff {
            initial: span(fields, "backoff_initial"),
            max: span(fields, "backoff_max"),
            reset_after: span(fields, "backoff_reset"),
            max_retries: u32::try_from(count(fields, "max_retries", 0)).unwrap_or(u32::MAX),
        },
        health_interval: span(fields, "health_interval"),
    }
}

fn store(fields: &mut Fields<'_>, data_dir: &Path) -> vaxel_store::Config {
    vaxel_store::Config {
        dir: data_dir.to_owned(),
        queue: count(fields, "queue", 1),
        readers: count(fields, "readers", 1),
        write_timeout: span(fields, "write_timeout"),
    }
}

fn records(fields: &mut Fields<'_>, tunables: &mut Tunables) -> Records {
    tunables.records = fields.boolean("enabled").unwrap_or(true);
    match fields.string("keep").as_deref() {
        Some("none") | None => tunables.keep = Keep::None,
        Some("parameters") => tunables.keep = Keep::Parameters,
        Some("all") => tunables.keep = Keep::All,
        Some(other) => {
            fields.issue(
                "keep",
                format!("`{other}` is none of none, parameters, all"),
            );
        }
    }
    tunables.keep_max = size(fields, "cap");
    Records {
        queue: count(fields, "queue", 1),
        retention: span(fields, "retention"),
        max_rows: count(fields, "max_rows", 1) as u64,
    }
}

fn logs(fields: &mut Fields<'_>) -> Logs {
    Logs {
        level: fields.string("level").unwrap_or_default(),
        format: fields.parsed("format").unwrap_or(LogFormat::Auto),
        line_max: size(fields, "line_max"),
        file_max: size(fields, "file_max") as u64,
        files: u32::try_from(count(fields, "files", 0)).unwrap_or(u32::MAX),
        tail: count(fields, "tail", 1),
    }
}

fn metrics(fields: &mut Fields<'_>) -> MetricsAccess {
    match fields.string("access").as_deref() {
        Some("loopback") | None => MetricsAccess::Loopback,
        Some("key") => MetricsAccess::Key,
        Some("off") => MetricsAccess::Off,
        Some(other) => {
            fields.issue("access", format!("`{other}` is none of loopback, key, off"));
            MetricsAccess::Off
        }
    }
}
