//! What was got for showing it to remote servers: tokens, and what Vaxel is called where they are given. What
//! is in here cannot be read without the root key.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, Service},
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// What is kept of one holder for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTokenRow {
    /// The only service that it is shown to.
    pub service: Id<Service>,
    /// Whose it is: `user:NAME`, `service` for everyone's, `client` for what Vaxel is called there.
    pub holder: String,
    /// Who gave it.
    pub issuer: String,
    /// Sealed bytes.
    pub sealed: Vec<u8>,
    /// When it came.
    pub updated_at: Timestamp,
}

static PUT: Stmt = Stmt::new(
    "INSERT INTO upstream_tokens (service, holder, issuer, sealed, updated_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (service, holder) DO UPDATE SET \
     issuer = excluded.issuer, sealed = excluded.sealed, updated_at = excluded.updated_at",
);
static FIND: Stmt = Stmt::new(
    "SELECT service, holder, issuer, sealed, updated_at FROM upstream_tokens \
     WHERE service = $1 AND holder = $2",
);
static OF_SERVICE: Stmt = Stmt::new(
    "SELECT service, holder, issuer, sealed, updated_at FROM upstream_tokens WHERE service = $1 \
     ORDER BY updated_at DESC, holder",
);
static ALL: Stmt = Stmt::new(
    "SELECT service, holder, issuer, sealed, updated_at FROM upstream_tokens ORDER BY service, holder",
);
static RESEAL: Stmt = Stmt::new(
    "UPDATE upstream_tokens SET sealed = $3 WHERE service = $1 AND holder = $2 AND updated_at = $4",
);
static FORGET: Stmt = Stmt::new("DELETE FROM upstream_tokens WHERE service = $1 AND holder = $2");
static FORGET_HOLDER: Stmt = Stmt::new("DELETE FROM upstream_tokens WHERE holder = $1");
static PURGE: Stmt = Stmt::new("DELETE FROM upstream_tokens WHERE service = $1");

impl Store {
    /// Keeps a row in the place of the one before it. Nothing is said in the audit where nobody did anything: a
    /// token follows another by itself.
    pub async fn put_upstream_token(
        &self,
        row: UpstreamTokenRow,
        audit: Option<AuditLine>,
    ) -> Result<(), Error> {
        self.write("put_upstream_token", move |tx| {
            let values = values![
                row.service,
                row.holder.as_str(),
                row.issuer.as_str(),
                &row.sealed[..],
                row.updated_at
            ];
            tx.put(&PUT, &values)?;
            audit.iter().try_for_each(|line| audit::append(tx, line))
        })
        .await
    }

    /// What is kept of this holder.
    pub async fn upstream_token(
        &self,
        service: Id<Service>,
        holder: String,
    ) -> Result<Option<UpstreamTokenRow>, Error> {
        self.read("upstream_token", move |tx| {
            tx.find(&FIND, &values![service, holder.as_str()], read)
        })
        .await
    }

    /// All that is kept for this service, the newest first.
    pub async fn upstream_tokens(
        &self,
        service: Id<Service>,
    ) -> Result<Vec<UpstreamTokenRow>, Error> {
        self.read("upstream_tokens", move |tx| {
            tx.query(&OF_SERVICE, &values![service], read)
        })
        .await
    }

    /// All there is.
    pub async fn all_upstream_tokens(&self) -> Result<Vec<UpstreamTokenRow>, Error> {
        self.read("all_upstream_tokens", move |tx| {
            tx.query(&ALL, &values![], read)
        })
        .await
    }

    /// Replaces the sealed bytes of rows that were sealed anew. One that was written meanwhile stays.
    pub async fn reseal_upstream_tokens(&self, rows: Vec<UpstreamTokenRow>) -> Result<(), Error> {
        self.write("reseal_upstream_tokens", move |tx| {
            for row in &rows {
                tx.execute(
                    &RESEAL,
                    &values![
                        row.service,
                        row.holder.as_str(),
                        &row.sealed[..],
                        row.updated_at
                    ],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Forgets what is kept of this holder; whether there was anything.
    pub async fn forget_upstream_token(
        &self,
        (service, holder): (Id<Service>, String),
        audit: Option<AuditLine>,
    ) -> Result<bool, Error> {
        self.write("forget_upstream_token", move |tx| {
            if tx.execute(&FORGET, &values![service, holder.as_str()])? == 0 {
                return Ok(false);
            }
            audit.iter().try_for_each(|line| audit::append(tx, line))?;
            Ok(true)
        })
        .await
    }
}

/// The service is gone, and what was kept for it.
pub(crate) fn purge(tx: &mut Tx<'_>, service: Id<Service>) -> Result<(), Error> {
    tx.execute(&PURGE, &values![service]).map(|_| ())
}

/// What remote servers were told of a holder who is gone.
pub(crate) fn forget_holder(tx: &mut Tx<'_>, holder: &str) -> Result<(), Error> {
    tx.put(&FORGET_HOLDER, &values![holder])
}

fn read(row: &Row<'_>) -> Result<UpstreamTokenRow, Error> {
    Ok(UpstreamTokenRow {
        service: row.id(0)?,
        holder: row.text(1)?,
        issuer: row.text(2)?,
        sealed: row.blob(3)?,
        updated_at: row.time(4)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &PUT,
    &FIND,
    &OF_SERVICE,
    &ALL,
    &RESEAL,
    &FORGET,
    &FORGET_HOLDER,
    &PURGE,
];
