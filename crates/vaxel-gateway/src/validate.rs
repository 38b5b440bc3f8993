//! Arguments and results against the schemas of their tool, for services that ask for it.
//!
//! A service that does not ask costs its calls one branch. Compiling a schema, and a check that is not
//! done at once, happen on threads of their own, few per service, and the call waits for them as long
//! as it may last. A tool whose schema cannot be used takes no calls: a check that a server could
//! switch off by what it publishes would be none, and a call that says why is found sooner than one
//! that was let through. Who wants its calls anyway says `validate: none`.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::{
    sync::{OnceCell, Semaphore},
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use vaxel_core::{
    failure::{Failure, Issue, Kind},
    service::Validate,
};
use vaxel_mcp::{
    meta,
    response::{Response as Answered, Verdict},
    schema::{OfTool, Schema, Unusable},
};

use crate::route::Route;

/// Threads that one service's schemas may use at once; further checks wait.
const THREADS: usize = 2;

/// The schemas of one tool: compiled when a call first needs them, kept while the tool stays as it is.
pub(crate) struct Schemas {
    definition: Arc<RawValue>,
    input: OnceCell<Compiled>,
    output: OnceCell<Compiled>,
    threads: Threads,
}

/// What a service's checks share.
pub(crate) type Threads = Arc<Semaphore>;

/// `None` when the tool has no such schema: then everything fits.
type Compiled = Option<Result<Arc<Schema>, Unusable>>;

/// Which of a tool's schemas.
#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

pub(crate) fn threads() -> Threads {
    Arc::new(Semaphore::new(THREADS))
}

/// Whether the arguments of a call are what its tool takes.
pub(crate) async fn arguments(
    route: &Route,
    arguments: Option<&str>,
    deadline: Instant,
) -> Result<(), Failure> {
    let Some(schemas) = &route.schemas else {
        return Ok(());
    };
    // Rare, and kept out of the state that every call carries.
    let check = Box::pin(check(
        schemas,
        route,
        Side::Input,
        arguments.unwrap_or("{}"),
    ));
    let issues = timeout_at(deadline, check).await;
    let issues = issues.map_err(|_| too_slow("arguments", route))??;
    if issues.is_empty() {
        return Ok(());
    }
    let tool = &route.own;
    let detail = format!("The arguments do not fit the input schema of `{tool}`");
    let mut failure = Failure::new(Kind::InvalidArguments, detail);
    failure.issues = issues;
    Err(failure)
}

/// Whether the result of a call is what its tool promises. One that the tool marked as an error
/// promises nothing.
pub(crate) async fn result(
    route: &Route,
    answered: &Answered,
    deadline: Instant,
) -> Result<(), Failure> {
    let is_wanted = route.shard.offers.validate == Validate::All;
    let Some(schemas) = route.schemas.as_ref().filter(|_| is_wanted) else {
        return Ok(());
    };
    if answered.verdict != Verdict::Complete {
        return Ok(());
    }
    let check = Box::pin(check_result(schemas, route, answered));
    let issues = timeout_at(deadline, check).await;
    let issues = issues.map_err(|_| too_slow("result", route))??;
    if issues.is_empty() {
        return Ok(());
    }
    let (service, tool) = (&route.shard.name, &route.own);
    let detail = format!(
        "`{service}` gave a result that does not fit the output schema of its tool `{tool}`"
    );
    let mut failure = Failure::new(Kind::UpstreamProtocol, detail);
    failure.issues = issues;
    Err(failure)
}

async fn check_result(
    schemas: &Arc<Schemas>,
    route: &Route,
    answered: &Answered,
) -> Result<Vec<Issue>, Failure> {
    let members = answered
        .payload()
        .ok()
        .and_then(|result| meta::members(result.get()));
    let members = members.unwrap_or_default();
    let find = |name: &str| members.iter().rfind(|(key, _)| key == name);
    // A task is not the result yet.
    let is_final = find("resultType").is_none_or(|(_, kind)| kind.get() == "\"complete\"");
    if !is_final || find("task").is_some() {
        return Ok(Vec::new());
    }
    if let Some((_, structured)) = find("structuredContent") {
        return check(schemas, route, Side::Output, structured.get()).await;
    }
    let missing = schemas.compiled(Side::Output, route).await?.is_some();
    let issue = || Issue::new("", "has no structured content");
    Ok(missing.then(issue).into_iter().collect())
}

/// What is wrong with `text`; nothing when it fits, or when there is no schema to fit.
async fn check(
    schemas: &Arc<Schemas>,
    route: &Route,
    side: Side,
    text: &str,
) -> Result<Vec<Issue>, Failure> {
    let Some(schema) = schemas.compiled(side, route).await? else {
        return Ok(Vec::new());
    };
    if !Schema::reads_quickly(text) {
        let text = text.to_owned();
        let work = move || match schema.read(&text) {
            Ok(instance) => schema.check(&instance).err().unwrap_or_default(),
            Err(issue) => vec![issue],
        };
        return aside(&schemas.threads, work).await;
    }
    match schema.read(text) {
        Ok(instance) if instance.is_quick() => {
            Ok(schema.check(&instance).err().unwrap_or_default())
        }
        Ok(instance) => {
            let work = move || schema.check(&instance).err().unwrap_or_default();
            aside(&schemas.threads, work).await
        }
        Err(issue) => Ok(vec![issue]),
    }
}

/// Does what takes its time on a thread of its own, in its turn.
async fn aside<T: Send + 'static>(
    threads: &Threads,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let turn = Arc::clone(threads).acquire_owned().await;
    let turn = turn.map_err(Failure::internal)?;
    let working = spawn_blocking(move || {
        // Given back when the work is done, also when nobody waits for it any more.
        let _turn = turn;
        work()
    });
    working.await.map_err(Failure::internal)
}

impl Schemas {
    /// The schemas of the tool with this definition.
    pub(crate) fn new(definition: &Arc<RawValue>, threads: &Threads) -> Self {
        Self {
            definition: Arc::clone(definition),
            input: OnceCell::new(),
            output: OnceCell::new(),
            threads: Arc::clone(threads),
        }
    }

    /// Whether they are those of this definition.
    pub(crate) fn are_of(&self, definition: &RawValue) -> bool {
        self.definition.get() == definition.get()
    }

    async fn compiled(&self, side: Side, route: &Route) -> Result<Option<Arc<Schema>>, Failure> {
        let (cell, name) = match side {
            Side::Input => (&self.input, "input"),
            Side::Output => (&self.output, "output"),
        };
        let compiled = cell.get_or_try_init(|| async {
            let definition = Arc::clone(&self.definition);
            let compiled = aside(&self.threads, move || compile(&definition, side)).await?;
            if let Some(Err(error)) = &compiled {
                tracing::warn!(
                    service.name = %route.shard.name, tool.name = %route.own,
                    "the tool takes no calls, since its {name} schema cannot be used: {error}"
                );
            }
            Ok::<_, Failure>(compiled)
        });
        match compiled.await? {
            None => Ok(None),
            Some(Ok(schema)) => Ok(Some(Arc::clone(schema))),
            Some(Err(error)) => {
                let (service, tool) = (&route.shard.name, &route.own);
                let detail = format!(
                    "`{service}` is set to be validated, and the {name} schema of its tool `{tool}` \
                     cannot be used for that: {error}. Have it mended, or set `validate: none` with \
                     `vaxel service edit {service}`"
                );
                Err(Failure::new(Kind::UpstreamProtocol, detail))
            }
        }
    }
}

fn compile(definition: &RawValue, side: Side) -> Compiled {
    let schemas = OfTool::read(definition);
    let schema = match side {
        Side::Input => schemas.input,
        Side::Output => schemas.output,
    };
    schema.map(|schema| Schema::compile(schema).map(Arc::new))
}

fn too_slow(what: &str, route: &Route) -> Failure {
    let detail = format!(
        "There was no time to check the {what} of `{}` against its schema",
        route.own
    );
    Failure::new(Kind::Busy, detail).retry_after(1)
}
