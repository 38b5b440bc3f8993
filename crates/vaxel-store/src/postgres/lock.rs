//! One Vaxel per database and schema: an advisory lock on the connection that writes.
//!
//! Whoever writes has the lock, because it lives and dies with that connection. When the connection
//! is lost and opened again, the server may not have noticed the end of the old one yet: then it is
//! told.

use std::time::Duration;

use tokio_postgres::Client;

use super::server::Server;
use crate::error::Error;

/// `VAXE`: who works on this schema.
macro_rules! key {
    () => {
        "1447123013, hashtext(current_schema())"
    };
}

/// `VAXF`: held from the first statement to the commit, so that one transaction writes at a time.
pub(super) const APPEND: &str =
    "SELECT pg_advisory_xact_lock(1447123014, hashtext(current_schema()));";
pub(super) const GIVE_BACK: &str = concat!("SELECT pg_advisory_unlock(", key!(), ");");
const TAKE: &str = concat!("SELECT pg_try_advisory_lock(", key!(), ")");
const HOLDER: &str = "SELECT a.pid, a.application_name, COALESCE(host(a.client_addr), 'local'), \
     to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS TZ') \
     FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 1447123013 \
     AND l.objid = (hashtext(current_schema())::bigint & 4294967295)::oid \
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
const END: &str = "SELECT pg_terminate_backend($1)";

/// How often it is tried: a Vaxel that just ended gives it back within a moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the lock for the life of this connection.
///
/// # Errors
/// [`Error::Shared`] when somebody else keeps it.
pub(super) async fn take(client: &Client, server: &Server) -> Result<(), Error> {
    let failed = |error| server.sorted(&error).0;
    let mut holder = String::from("it says nothing about itself");
    for _ in 0..TRIES {
        let taken = client.query_one(TAKE, &[]).await.map_err(failed)?;
        match taken.try_get(0).map_err(failed)? {
            Some(true) => return Ok(()),
            Some(false) => {}
            None => return Err(server.refused("no schema of its search_path is there")),
        }
        if let Some(row) = client.query_opt(HOLDER, &[]).await.map_err(failed)? {
            let get = |at| row.try_get::<_, Option<String>>(at);
            let name = get(1).map_err(failed)?.unwrap_or_default();
            if name == server.application() {
                // Our own connection, which was lost.
                let pid: i32 = row.try_get(0).map_err(failed)?;
                client.query(END, &[&pid]).await.map_err(failed)?;
            }
            let (from, since) = (get(2).map_err(failed)?, get(3).map_err(failed)?);
            let (from, since) = (from.unwrap_or_default(), since.unwrap_or_default());
            holder = format!("`{name}` from {from}, since {since}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::Shared {
        server: server.name().to_owned(),
        holder,
    })
}
