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

/// One side of one call.
struct Check<'a> {
    schemas: &'a Schemas,
    route: &'a Route,
    side: Side,
    deadline: Instant,
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
    let check = Check {
        schemas,
        route,
        side: Side::Input,
        deadline,
    };
    let issues = check.of(arguments.unwrap_or("{}")).await?;
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
    let check = Check {
        schemas,
        route,
        side: Side::Output,
        deadline,
    };
    let issues = check.of_result(answered).await?;
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

impl Check<'_> {
    async fn of_result(&self, answered: &Answered) -> Result<Vec<Issue>, Failure> {
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
            return self.of(structured.get()).await;
        }
        let is_promised = self.schema().await?.is_some();
        let issue = || Issue::new("", "has no structured content");
        Ok(is_promised.then(issue).into_iter().collect())
    }

    /// What is wrong with `text`; nothing when it fits, or when there is no schema to fit.
    async fn of(&self, text: &str) -> Result<Vec<Issue>, Failure> {
        let Some(schema) = self.schema().await? else {
            return Ok(Vec::new());
        };
        if !Schema::reads_quickly(text) {
            let text = text.to_owned();
            let work = move || match schema.read(&text) {
                Ok(instance) => schema.check(&instance).err().unwrap_or_default(),
                Err(issue) => vec![issue],
            };
            return Box::pin(self.aside(work)).await;
        }
        match schema.read(text) {
            Ok(instance) if instance.is_quick() => {
                Ok(schema.check(&instance).err().unwrap_or_default())
            }
            Ok(instance) => {
                let work = move || schema.check(&instance).err().unwrap_or_default();
                Box::pin(self.aside(work)).await
            }
            Err(issue) => Ok(vec![issue]),
        }
    }

    async fn schema(&self) -> Result<Option<Arc<Schema>>, Failure> {
        let cell = match self.side {
            Side::Input => &self.schemas.input,
            Side::Output => &self.schemas.output,
        };
        let compiled = if let Some(compiled) = cell.get() {
            compiled
        } else {
            let compiling = Box::pin(cell.get_or_try_init(|| self.compile()));
            let compiled = timeout_at(self.deadline, compiling).await;
            compiled.map_err(|_| self.too_slow())??
        };
        match compiled {
            None => Ok(None),
            Some(Ok(schema)) => Ok(Some(Arc::clone(schema))),
            Some(Err(error)) => Err(self.unusable(error)),
        }
    }

    async fn compile(&self) -> Result<Compiled, Failure> {
        let definition = Arc::clone(&self.schemas.definition);
        let side = self.side;
        let work = move || {
            let schemas = OfTool::read(&definition);
            let schema = match side {
                Side::Input => schemas.input,
                Side::Output => schemas.output,
            };
            schema.map(|schema| Schema::compile(schema).map(Arc::new))
        };
        let compiled = self.aside(work).await?;
        if let Some(Err(error)) = &compiled {
            let (service, tool) = (&self.route.shard.name, &self.route.own);
            tracing::warn!(
                service.name = %service, tool.name = %tool,
                "the tool takes no calls, since its {} schema cannot be used: {error}", side.name()
            );
        }
        Ok(compiled)
    }

    /// Does what takes its time on a thread of its own, in its turn.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let threads = Arc::clone(&self.schemas.threads);
        let working = async move {
            let turn = threads.acquire_owned().await.map_err(Failure::internal)?;
            let working = spawn_blocking(move || {
                // Given back when the work is done, also when nobody waits for it any more.
                let _turn = turn;
                work()
            });
            working.await.map_err(Failure::internal)
        };
        let worked = timeout_at(self.deadline, working).await;
        worked.map_err(|_| self.too_slow())?
    }

    fn unusable(&self, error: &Unusable) -> Failure {
        let (service, tool) = (&self.route.shard.name, &self.route.own);
        let side = self.side.name();
        let detail = format!(
            "`{service}` is set to be validated, and the {side} schema of its tool `{tool}` cannot \
             be used for that: {error}. Have it mended, or set `validate: none` with `vaxel service \
             edit {service}`"
        );
        Failure::new(Kind::UpstreamProtocol, detail)
    }

    fn too_slow(&self) -> Failure {
        let (side, tool) = (self.side.name(), &self.route.own);
        let detail =
            format!("There was no time to check a call of `{tool}` against its {side} schema");
        Failure::new(Kind::Busy, detail).retry_after(1)
    }
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
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
}
