//! The schema, as numbered steps for both engines. A step that was released is never edited: a new one
//! follows it.
//!
//! Steps are written as SQLite reads them, with the types TEXT, BIGINT and BLOB; `seq INTEGER PRIMARY
//! KEY` numbers its rows. [`for_postgres`] says how the other engine reads that.

use std::path::Path;

use rusqlite::Connection;

use crate::{
    error::Error,
    postgres::{Server, Session},
    stmt::values,
};

/// Steps of `vaxel.db`.
pub(crate) const RESOURCES: &[&str] = &[
    "
CREATE TABLE services (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, version BIGINT NOT NULL, revision BIGINT NOT NULL,
    enabled BIGINT NOT NULL, tags TEXT NOT NULL, environment TEXT NOT NULL, owner TEXT NOT NULL,
    source TEXT NOT NULL, spec TEXT NOT NULL, search TEXT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT
);
CREATE UNIQUE INDEX services_by_name ON services (name) WHERE deleted_at IS NULL;
CREATE TABLE revisions (
    service TEXT NOT NULL, revision BIGINT NOT NULL, spec TEXT NOT NULL, author TEXT NOT NULL,
    created_at BIGINT NOT NULL, PRIMARY KEY (service, revision)
);
CREATE TABLE secrets (
    id TEXT PRIMARY KEY, service TEXT NOT NULL, sealed BLOB NOT NULL, created_at BIGINT NOT NULL
);
CREATE INDEX secrets_by_service ON secrets (service);
CREATE TABLE keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, prefix TEXT NOT NULL UNIQUE, digest BLOB NOT NULL,
    permissions TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT, revoked_at BIGINT,
    last_used_at BIGINT
);
CREATE UNIQUE INDEX keys_by_name ON keys (name) WHERE revoked_at IS NULL;
CREATE TABLE catalogs (
    service TEXT PRIMARY KEY, catalog TEXT NOT NULL, fetched_at BIGINT NOT NULL
);
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, actor_key TEXT,
    action TEXT NOT NULL, target_kind TEXT NOT NULL, target_id TEXT NOT NULL,
    target_name TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY, at BIGINT NOT NULL, action TEXT NOT NULL, target_kind TEXT NOT NULL,
    target_id TEXT NOT NULL
);
CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL, updated_at BIGINT NOT NULL);
",
    "
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, principal TEXT, log_level TEXT, subscriptions TEXT NOT NULL,
    ended_at BIGINT, seen_at BIGINT NOT NULL
);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
",
    "
DROP TABLE sessions;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, log_level TEXT, watched TEXT NOT NULL, ended BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);
",
    "
ALTER TABLE services ADD COLUMN activated_at BIGINT;
UPDATE services SET activated_at = created_at WHERE enabled = 1;
CREATE TABLE dependencies (
    service TEXT NOT NULL, needs TEXT NOT NULL, PRIMARY KEY (service, needs)
);
CREATE INDEX dependencies_by_need ON dependencies (needs);
",
    "
CREATE TABLE health (
    seq INTEGER PRIMARY KEY, at BIGINT NOT NULL, service TEXT NOT NULL, health TEXT NOT NULL,
    reason TEXT
);
CREATE INDEX health_by_service ON health (service, seq);
CREATE TABLE accepted_definitions (
    service TEXT PRIMARY KEY, digests TEXT NOT NULL, accepted_at BIGINT NOT NULL
);
",
    // What the feed tells, why a change was made, and all of a service in each of its revisions.
    "
ALTER TABLE outbox ADD COLUMN target_name TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN message TEXT;
ALTER TABLE outbox ADD COLUMN detail TEXT NOT NULL DEFAULT 'null';
ALTER TABLE audit ADD COLUMN message TEXT;
ALTER TABLE revisions ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE revisions ADD COLUMN enabled BIGINT NOT NULL DEFAULT 1;
ALTER TABLE revisions ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE revisions ADD COLUMN environment TEXT NOT NULL DEFAULT 'default';
ALTER TABLE revisions ADD COLUMN action TEXT NOT NULL DEFAULT 'service.update';
ALTER TABLE revisions ADD COLUMN message TEXT;
UPDATE revisions SET
    name = (SELECT name FROM services WHERE services.id = revisions.service),
    enabled = (SELECT enabled FROM services WHERE services.id = revisions.service),
    tags = (SELECT tags FROM services WHERE services.id = revisions.service),
    environment = (SELECT environment FROM services WHERE services.id = revisions.service)
WHERE service IN (SELECT id FROM services);
UPDATE revisions SET action = 'service.create' WHERE revision = 1;
CREATE TABLE revision_labels (
    service TEXT NOT NULL, label TEXT NOT NULL, revision BIGINT NOT NULL,
    PRIMARY KEY (service, label)
);
",
    "
CREATE TABLE toolsets (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, version BIGINT NOT NULL, description TEXT,
    services TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL
);
",
    "
CREATE TABLE templates (
    name TEXT PRIMARY KEY, version BIGINT NOT NULL, template TEXT NOT NULL, author TEXT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT
);
",
    // What services went through by themselves is audited and, other than what people did, not kept for ever.
    "
CREATE INDEX audit_of_lifecycles ON audit (at) WHERE action = 'service.lifecycle';
",
    // What clients see of the tools of a set.
    "
ALTER TABLE toolsets ADD COLUMN shown TEXT NOT NULL DEFAULT 'all';
",
    // Users, and what they may do. Keys that were there before are the first user's, and so is what was
    // made with them.
    "
CREATE TABLE users (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, version BIGINT NOT NULL,
    title TEXT, roles TEXT NOT NULL, disabled BIGINT NOT NULL, created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL, deleted_at BIGINT
);
CREATE TABLE roles (
    name TEXT PRIMARY KEY, version BIGINT NOT NULL, description TEXT, permissions TEXT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL
);
CREATE TABLE grants (
    id TEXT PRIMARY KEY, grantee TEXT NOT NULL, service TEXT NOT NULL, permissions TEXT NOT NULL,
    granted_by TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX grants_by_service ON grants (service, grantee);
CREATE TABLE policies (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, version BIGINT NOT NULL, policy TEXT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL
);
ALTER TABLE keys ADD COLUMN user_name TEXT NOT NULL DEFAULT 'admin';
ALTER TABLE keys ADD COLUMN services TEXT;
ALTER TABLE keys ADD COLUMN environments TEXT;
UPDATE services SET owner = 'admin' WHERE owner IN (SELECT name FROM keys);
",
    // How people prove who they are: passwords, what begins with them, and the keys of their tokens.
    "
CREATE TABLE passwords (
    user_id TEXT PRIMARY KEY, phc TEXT NOT NULL, must_change BIGINT NOT NULL,
    changed_at BIGINT NOT NULL, failures BIGINT NOT NULL, locked_until BIGINT
);
CREATE TABLE sign_ins (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, ended_at BIGINT,
    address TEXT NOT NULL, agent TEXT NOT NULL, family BLOB NOT NULL, refresh BLOB NOT NULL
);
CREATE INDEX sign_ins_by_user ON sign_ins (user_id);
CREATE INDEX sign_ins_by_end ON sign_ins (ended_at);
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY, algorithm TEXT NOT NULL, stage TEXT NOT NULL, since BIGINT NOT NULL,
    sealed BLOB NOT NULL
);
",
    // Clients that log in for users: what they say of themselves, what users let them do, and sign-ins of theirs.
    "
CREATE TABLE oauth_clients (
    id TEXT PRIMARY KEY, metadata TEXT NOT NULL, secret BLOB, created_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE TABLE oauth_consents (
    user_id TEXT NOT NULL, client TEXT NOT NULL, endpoint TEXT NOT NULL, permissions TEXT NOT NULL,
    given_at BIGINT NOT NULL, PRIMARY KEY (user_id, client, endpoint)
);
ALTER TABLE sign_ins ADD COLUMN delegation TEXT;
",
    // Who came from where, what was and is, and the chain that holds all lines of the audit together.
    "
ALTER TABLE audit ADD COLUMN credential TEXT;
ALTER TABLE audit ADD COLUMN on_behalf TEXT;
ALTER TABLE audit ADD COLUMN was TEXT;
ALTER TABLE audit ADD COLUMN became TEXT;
ALTER TABLE audit ADD COLUMN address TEXT;
ALTER TABLE audit ADD COLUMN door TEXT;
ALTER TABLE audit ADD COLUMN request TEXT;
ALTER TABLE audit ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done';
ALTER TABLE audit ADD COLUMN hash TEXT;
ALTER TABLE audit ADD COLUMN seal TEXT;
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY, number BIGINT NOT NULL, hash TEXT NOT NULL, seal TEXT NOT NULL
);
CREATE TABLE audit_keys (
    since BIGINT PRIMARY KEY, sealed TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE TABLE audit_gaps (
    first_line BIGINT PRIMARY KEY, last_line BIGINT NOT NULL, hash_before TEXT NOT NULL,
    hash_after TEXT NOT NULL, seal TEXT NOT NULL
);
CREATE INDEX audit_gaps_by_end ON audit_gaps (last_line);
",
    // How much users may take: what their roles say, or they themselves.
    "
ALTER TABLE roles ADD COLUMN limits TEXT;
ALTER TABLE users ADD COLUMN limits TEXT;
",
    // Keys that get another secret, and where they were used from; keys that are sealed by the root key alone.
    "
ALTER TABLE keys ADD COLUMN rotated_at BIGINT;
ALTER TABLE keys ADD COLUMN rotate_every BIGINT;
ALTER TABLE keys ADD COLUMN earlier_prefix TEXT;
ALTER TABLE keys ADD COLUMN earlier_digest BLOB;
ALTER TABLE keys ADD COLUMN earlier_until BIGINT;
ALTER TABLE keys ADD COLUMN earlier_used_at BIGINT;
ALTER TABLE keys ADD COLUMN last_used_from TEXT;
CREATE TABLE data_keys (
    purpose TEXT PRIMARY KEY, sealed BLOB NOT NULL, created_at BIGINT NOT NULL
);
CREATE INDEX keys_by_user ON keys (user_name);
CREATE INDEX keys_by_rotation ON keys (rotate_every) WHERE rotate_every IS NOT NULL;
",
    // What remote servers are shown: tokens per holder, and what Vaxel is called where they are given.
    "
CREATE TABLE upstream_tokens (
    service TEXT NOT NULL, holder TEXT NOT NULL, issuer TEXT NOT NULL, sealed BLOB NOT NULL,
    updated_at BIGINT NOT NULL, PRIMARY KEY (service, holder)
);
",
];

/// Steps of `records.db`.
pub(crate) const RECORDS: &[&str] = &[
    "
CREATE TABLE calls (
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, at BIGINT NOT NULL, duration_us BIGINT NOT NULL,
    service BLOB NOT NULL, service_name TEXT NOT NULL, method TEXT NOT NULL, target TEXT NOT NULL,
    principal BLOB, principal_name TEXT NOT NULL, outcome TEXT NOT NULL, error TEXT,
    request_bytes BIGINT NOT NULL, response_bytes BIGINT NOT NULL, client_revision TEXT NOT NULL,
    upstream_revision TEXT NOT NULL, door TEXT NOT NULL, trace_id TEXT, request BLOB, response BLOB
);
CREATE TABLE call_stats (
    service BLOB PRIMARY KEY, calls BIGINT NOT NULL, errors BIGINT NOT NULL,
    total_us BIGINT NOT NULL, last_at BIGINT NOT NULL
);
",
    "
CREATE INDEX calls_by_service ON calls (service);
",
    // Calls summed up by hour and by day, of services and of tools: `grain` says which. See `usage.rs`.
    "
CREATE TABLE usage (
    grain BIGINT NOT NULL, service BLOB NOT NULL, at BIGINT NOT NULL, target TEXT NOT NULL,
    calls BIGINT NOT NULL, errors BIGINT NOT NULL, total_us BIGINT NOT NULL, times BLOB NOT NULL,
    PRIMARY KEY (grain, service, at, target)
);
CREATE TABLE usage_callers (
    grain BIGINT NOT NULL, service BLOB NOT NULL, at BIGINT NOT NULL, target TEXT NOT NULL,
    caller BLOB NOT NULL, PRIMARY KEY (grain, service, at, target, caller)
);
CREATE INDEX usage_by_time ON usage (grain, at);
CREATE INDEX usage_callers_by_time ON usage_callers (grain, at);
",
];

/// Brings a database to the newest schema, or refuses one that is newer. `user_version` holds the
/// number of steps that were applied.
pub(crate) fn apply(connection: &Connection, file: &Path, steps: &[&str]) -> Result<(), Error> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|error| Error::opening(file, error))?;
    if found > known {
        return Err(Error::Newer {
            file: file.to_owned(),
            found,
            known,
        });
    }
    for (index, step) in steps
        .iter()
        .enumerate()
        .skip(usize::try_from(found).unwrap_or(0))
    {
        let version = index + 1;
        let all = format!("BEGIN IMMEDIATE; {step}; PRAGMA user_version={version}; COMMIT;");
        connection
            .execute_batch(&all)
            .map_err(|error| Error::opening(file, error))?;
    }
    Ok(())
}

/// A step as PostgreSQL reads it. Texts are compared byte by byte, as SQLite does, whatever the
/// language of the database.
pub(crate) fn for_postgres(step: &str) -> String {
    const SEQUENCE: &str = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY";
    step.replace("INTEGER PRIMARY KEY", SEQUENCE)
        .replace(" BLOB", " BYTEA")
        .replace(" TEXT", " TEXT COLLATE \"C\"")
}

/// Takes every table of ours away, also those of an older schema. Whoever calls this holds the lock of the
/// database.
///
/// # Errors
/// [`Error::Newer`] when a later version made it, whose tables are not known here.
pub(crate) fn empty_postgres(session: &mut Session, server: &Server) -> Result<(), Error> {
    for part in [("resources", RESOURCES), ("records", RECORDS)] {
        steps_done(session, server, part)?;
    }
    // Also those that a later step took away: an older schema may still have them.
    let every_step = RESOURCES.iter().chain(RECORDS);
    let mut tables: Vec<String> = every_step
        .flat_map(|step| crate::transfer::tables_of(&[step]))
        .collect();
    tables.push("schema_steps".to_owned());
    let drops = tables
        .iter()
        .map(|table| format!("DROP TABLE IF EXISTS {table};"));
    let drops: String = drops.collect();
    session.run(&format!("BEGIN; {drops} COMMIT;"))
}

/// The same as [`apply`] in a schema of PostgreSQL, where a table holds the numbers of steps. Whoever
/// calls this holds the lock of the database.
pub(crate) fn apply_to_postgres(
    session: &mut Session,
    server: &Server,
    (part, steps): (&str, &[&str]),
) -> Result<(), Error> {
    let done = steps_done(session, server, (part, steps))?;
    for (index, step) in steps.iter().enumerate().skip(done) {
        let version = index + 1;
        let step = for_postgres(step);
        session.run(&format!(
            "BEGIN; {step}; INSERT INTO schema_steps VALUES ('{part}', {version}) \
             ON CONFLICT (part) DO UPDATE SET steps = {version}; COMMIT;"
        ))?;
    }
    Ok(())
}

/// How many steps of a part were applied.
fn steps_done(
    session: &mut Session,
    server: &Server,
    (part, steps): (&str, &[&str]),
) -> Result<usize, Error> {
    session.run(
        "CREATE TABLE IF NOT EXISTS schema_steps (part TEXT PRIMARY KEY, steps BIGINT NOT NULL);",
    )?;
    let rows = session.query(
        "SELECT steps FROM schema_steps WHERE part = $1",
        &values![part],
    )?;
    let found: i64 = match rows.first() {
        Some(row) => row
            .try_get(0)
            .map_err(|error| Error::unreadable("number of the schema", error))?,
        None => 0,
    };
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if found > known {
        let file = format!("{} ({part})", server.name()).into();
        return Err(Error::Newer { file, found, known });
    }
    Ok(usize::try_from(found).unwrap_or(0))
}
