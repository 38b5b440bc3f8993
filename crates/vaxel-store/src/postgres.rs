//! PostgreSQL: sessions that block the thread which uses them, each with a small runtime of its own.
//!
//! What goes around the work of callers (`BEGIN`, savepoints) is sent together with the next
//! statement, so that it costs no round trip. Every wait has a deadline, on both sides.

use std::{collections::HashMap, mem, sync::Arc};

use futures_util::future::join_all;
use tokio::runtime::Runtime;
use tokio_postgres::{
    Client, Statement,
    types::{ToSql, Type},
};

use vaxel_core::audit::chain::Link;

use crate::{
    error::Error,
    stmt::{Kind, Value},
};

mod url; // read this first: what a URL says
mod server;
mod lock;
mod wire;
mod listen;

pub use url::{DatabaseUrl, InvalidUrl};

pub(crate) use listen::Ear;
pub(crate) use server::{Role, Server};
pub(crate) use wire::Number;

/// A connection that is opened when it is needed, and again when it was lost.
pub(crate) struct Session {
    server: Arc<Server>,
    role: Role,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
    open: Option<Open>,
    /// What is sent before the next statement.
    frames: String,
    /// Statements that are sent with the next one that somebody waits for: [`TOGETHER`] at most.
    later: Vec<Later>,
    stage: Stage,
    /// Why it could not be opened for this transaction.
    down: Option<Error>,
    /// The newest link of the audit, as this transaction left it: to ask for it costs a round trip.
    pub(crate) link: Option<Link>,
}

type Later = (&'static str, Vec<Value<'static>>);

/// Statements that are sent together.
const TOGETHER: usize = 30;

/// Where a session is in a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is none, or nothing of it was sent.
    Outside,
    /// The server knows of it.
    Inside,
    /// It was in the middle of one when the connection was lost.
    Broken,
}

struct Open {
    client: Client,
    /// By text, with the types of its parameters. Texts are static: there is a bounded number.
    statements: HashMap<&'static str, (Vec<Kind>, Statement)>,
}

impl Session {
    pub(crate) fn new(server: Arc<Server>, role: Role) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Engine(error.to_string()))?;
        Ok(Self {
            server,
            role,
            runtime: Some(runtime),
            open: None,
            frames: String::new(),
            later: Vec::new(),
            stage: Stage::Outside,
            down: None,
            link: None,
        })
    }

    pub(crate) fn begin_write(&mut self) {
        // With the lock held from here, changes are numbered in the order of their commits.
        let lock = match self.role {
            Role::Resources => lock::APPEND,
            Role::Records | Role::Reader => "",
        };
        self.begin(&format!("BEGIN;{lock}"));
    }

    pub(crate) fn begin_read(&mut self) {
        self.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;");
    }

    fn begin(&mut self, frames: &str) {
        self.later.clear();
        self.frames.clear();
        self.frames.push_str(frames);
        self.stage = Stage::Outside;
        self.down = None;
        self.link = None;
    }

    pub(crate) fn save(&mut self) {
        self.frames.push_str("SAVEPOINT caller;");
    }

    pub(crate) fn keep(&mut self) {
        self.frames.push_str("RELEASE caller;");
    }

    pub(crate) fn take_back(&mut self) -> Result<(), Error> {
        self.link = None;
        self.intact()?;
        self.later.clear();
        self.frames.push_str("ROLLBACK TO caller; RELEASE caller;");
        // At once: the caller's failure may be ours, and is to be seen before others follow.
        self.flush()
    }

    /// Commits.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the connection was lost before the answer came.
    pub(crate) fn commit(&mut self) -> Result<(), Error> {
        self.intact()?;
        if self.stage == Stage::Outside {
            // Alone, because what begins the transaction can be sent again, and a commit cannot.
            self.settle()?;
        }
        if self.stage == Stage::Outside {
            // Nobody ran a statement, so there is nothing that could be lost.
            self.frames.clear();
            return Ok(());
        }
        // In a transaction that failed COMMIT would only say that it rolled back; anything before
        // it fails.
        let end = match self.role {
            Role::Resources => listen::NOTIFY,
            Role::Records | Role::Reader => "SELECT 1;",
        };
        self.send_later(&format!("{end} COMMIT;"))
            .map_err(|error| match error {
                Error::Unreachable { server, detail } => {
                    tracing::error!(server, detail, "the answer to a commit was lost");
                    Error::Unknown { server }
                }
                other => other,
            })?;
        self.stage = Stage::Outside;
        Ok(())
    }

    pub(crate) fn roll_back(&mut self) -> Result<(), Error> {
        self.link = None;
        self.later.clear();
        self.frames.clear();
        let stage = mem::replace(&mut self.stage, Stage::Outside);
        if stage != Stage::Inside {
            return Ok(());
        }
        self.frames.push_str("ROLLBACK;");
        let done = self.flush();
        self.stage = Stage::Outside;
        if done.is_err() {
            // Whatever it is in, nobody else is to find it there.
            self.open = None;
        }
        done
    }

    /// Why the session was not there for the transaction.
    pub(crate) fn could_not_begin(&self) -> Option<Error> {
        self.down.as_ref().map(Error::again)
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<usize, Error> {
        let changed = self.ask(text, values, &async |client, statement, values| {
            client.execute(statement, values).await
        })?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// All rows of a statement.
    pub(crate) fn query(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        self.ask(text, values, &async |client, statement, values| {
            client.query(statement, values).await
        })
    }

    /// Reads the rows of a question through a cursor, which takes the name of a table.
    pub(crate) fn each(
        &mut self,
        text: &'static str,
        name: &str,
        mut read: impl FnMut(&tokio_postgres::Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let cursor = format!("DECLARE of_{name} NO SCROLL CURSOR FOR {text};");
        self.frames.push_str(&cursor);
        self.flush()?;
        let fetch = format!("FETCH 500 FROM of_{name}");
        loop {
            let rows = self.wait(async |client| client.query(&fetch, &[]).await)?;
            if rows.is_empty() {
                break;
            }
            rows.iter().try_for_each(&mut read)?;
        }
        let close = format!("CLOSE of_{name};");
        self.frames.push_str(&close);
        self.flush()
    }

    /// Lets the numbers of a table go on behind the largest one.
    pub(crate) fn continue_numbers(&mut self, table: &str) -> Result<(), Error> {
        let last = format!(
            "SELECT setval(pg_get_serial_sequence('{table}', 'seq'), max(seq)) FROM {table} \
             HAVING max(seq) IS NOT NULL;"
        );
        self.frames.push_str(&last);
        self.flush()
    }

    /// Runs statements that come with their own frame: steps of the schema.
    pub(crate) fn run(&mut self, texts: &str) -> Result<(), Error> {
        self.begin(texts);
        let done = self.flush();
        self.stage = Stage::Outside;
        done
    }

    /// Says goodbye, so that the server gives back at once what the session holds.
    pub(crate) fn finish(mut self: Box<Self>) {
        if self.open.is_some()
            && self.role == Role::Resources
            && let Err(error) = self.run(lock::GIVE_BACK)
        {
            tracing::debug!(%error, "the lock of the database is given back by the server");
        }
    }

    /// Lets a statement be run with the next one that somebody waits for.
    pub(crate) fn put(&mut self, text: &'static str, values: &[Value<'_>]) -> Result<(), Error> {
        let values = values.iter().map(Value::to_owned).collect();
        self.later.push((text, values));
        if self.later.len() == TOGETHER {
            self.settle()?;
        }
        Ok(())
    }

    /// Waits for the end of all that was put.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        if self.later.is_empty() {
            return self.intact();
        }
        self.twice(|session| session.send_later(""))
    }

    fn ask<T>(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
        question: &impl AsyncFn(&Client, &Statement, &[&(dyn ToSql + Sync)]) -> Asked<T>,
    ) -> Result<T, Error> {
        self.twice(|session| {
            if !session.later.is_empty() {
                session.send_later("")?;
            }
            session.ask_once(text, values, question)
        })
    }

    /// Does something once more on a new connection when the old one turns out to be gone and
    /// nothing of the transaction was sent on it.
    fn twice<T>(
        &mut self,
        mut something: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.intact()?;
        if self.stage == Stage::Inside || self.open.is_none() {
            return something(self);
        }
        let (frames, later) = (self.frames.clone(), self.later.clone());
        match something(self) {
            Err(Error::Unreachable { .. }) if self.down.is_none() => {
                self.stage = Stage::Outside;
                self.frames = frames;
                self.later = later;
                something(self)
            }
            done => done,
        }
    }

    /// Sends what was put, between what comes before it and `after`; all of it before anything is
    /// answered. The first error counts.
    fn send_later(&mut self, after: &str) -> Result<(), Error> {
        let later = mem::take(&mut self.later);
        let mut statements = Vec::with_capacity(later.len());
        for (text, values) in &later {
            statements.push(self.prepare(text, values.iter().map(Value::kind).collect())?);
        }
        self.connect()?;
        let before = mem::take(&mut self.frames);
        self.stage = Stage::Inside;
        self.wait(async |client| {
            let run = async |(statement, (_, values)): (&Statement, &Later)| {
                let values: Vec<&(dyn ToSql + Sync)> = values
                    .iter()
                    .map(|value| value as &(dyn ToSql + Sync))
                    .collect();
                client.execute(statement, &values).await
            };
            let all = join_all(statements.iter().zip(&later).map(run));
            let (before, all, after) = tokio::join!(
                biased;
                framed(client, &before),
                all,
                framed(client, after)
            );
            before?;
            for one in all {
                one?;
            }
            after
        })
    }

    fn ask_once<T>(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
        question: &impl AsyncFn(&Client, &Statement, &[&(dyn ToSql + Sync)]) -> Asked<T>,
    ) -> Result<T, Error> {
        let statement = self.prepare(text, values.iter().map(Value::kind).collect())?;
        let frames = mem::take(&mut self.frames);
        if !frames.is_empty() {
            self.stage = Stage::Inside;
        }
        let values: Vec<&(dyn ToSql + Sync)> = values
            .iter()
            .map(|value| value as &(dyn ToSql + Sync))
            .collect();
        self.wait(async |client| {
            // Both are sent before either is answered.
            let (framed, answer) = tokio::join!(
                biased;
                framed(client, &frames),
                question(client, &statement, &values)
            );
            framed.and(answer)
        })
    }

    /// The statement of a text, prepared once per connection.
    fn prepare(&mut self, text: &'static str, kinds: Vec<Kind>) -> Result<Statement, Error> {
        self.connect()?;
        let known = self
            .open
            .as_ref()
            .and_then(|open| open.statements.get(text));
        if let Some((known, statement)) = known
            && *known == kinds
        {
            return Ok(statement.clone());
        }
        let types: Vec<Type> = kinds.iter().map(|kind| wire::type_of(*kind)).collect();
        let statement = self.wait(async |client| client.prepare_typed(text, &types).await)?;
        if let Some(open) = &mut self.open {
            open.statements.insert(text, (kinds, statement.clone()));
        }
        Ok(statement)
    }

    /// Whether a text can be prepared with parameters of these types; the others are found out.
    #[cfg(test)]
    pub(crate) fn try_kinds(
        &mut self,
        text: &'static str,
        kinds: &[Option<Kind>],
    ) -> Result<(), Error> {
        self.connect()?;
        let types = kinds
            .iter()
            .map(|kind| kind.map_or(Type::UNKNOWN, wire::type_of));
        let types: Vec<Type> = types.collect();
        self.wait(async |client| client.prepare_typed(text, &types).await.map(drop))
    }

    /// Sends what is to be sent, and waits for its end.
    fn flush(&mut self) -> Result<(), Error> {
        self.connect()?;
        let frames = mem::take(&mut self.frames);
        self.stage = Stage::Inside;
        self.wait(async |client| client.batch_execute(&frames).await)
    }

    /// An error when the transaction cannot go on.
    fn intact(&self) -> Result<(), Error> {
        match (&self.down, self.stage) {
            (Some(error), _) => Err(error.again()),
            (None, Stage::Broken) => Err(self.server.unreachable("the connection was lost")),
            (None, Stage::Outside | Stage::Inside) => Ok(()),
        }
    }

    fn connect(&mut self) -> Result<(), Error> {
        if let Some(open) = &self.open
            && !open.client.is_closed()
        {
            return Ok(());
        }
        self.open = None;
        if self.stage == Stage::Inside {
            self.stage = Stage::Broken;
        }
        self.intact()?;
        let Some(runtime) = &self.runtime else {
            return Err(Error::Closed);
        };
        match server::connect(runtime, &self.server, self.role) {
            Ok(client) => {
                let statements = HashMap::new();
                self.open = Some(Open { client, statements });
                Ok(())
            }
            Err(error) => {
                self.down = Some(error.again());
                Err(error)
            }
        }
    }

    /// Waits for an answer, as long as one may take. Without one the connection is given up.
    fn wait<T>(&mut self, question: impl AsyncFnOnce(&Client) -> Asked<T>) -> Result<T, Error> {
        let (Some(runtime), Some(open)) = (&self.runtime, &self.open) else {
            return Err(Error::Closed);
        };
        let limit = self.server.patience();
        let asking = async { tokio::time::timeout(limit, question(&open.client)).await };
        let (error, is_lost) = match runtime.block_on(asking) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.server.sorted(&error),
            Err(_) => {
                let detail = format!("no answer within {} s", limit.as_secs());
                (self.server.unreachable(&detail), true)
            }
        };
        if is_lost {
            self.open = None;
            if self.stage == Stage::Inside {
                self.stage = Stage::Broken;
            }
        }
        Err(error)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.open = None;
        // It may be dropped where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn framed(client: &Client, texts: &str) -> Asked<()> {
    if texts.is_empty() {
        return Ok(());
    }
    client.batch_execute(texts).await
}

type Asked<T> = Result<T, tokio_postgres::Error>;
