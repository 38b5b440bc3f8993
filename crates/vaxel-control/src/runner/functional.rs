//! Calls a tool and sees whether it does what it should.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;
use vaxel_core::{
    catalog::Catalog,
    failure::Kind,
    health::{check::Finding, expect::ToolAnswer, spec::FunctionalCheck},
    id::{Id, Service},
};
use vaxel_gateway::{CheckReply, Gateway, Link, ToolCheck};
use vaxel_mcp::schema::{OfTool, Schema};

/// The output schemas of the tools that are called, compiled once for each definition.
#[derive(Default)]
pub(super) struct Schemas(HashMap<String, Compiled>);

struct Compiled {
    of: Arc<RawValue>,
    /// `None`: the tool promises nothing.
    schema: Result<Option<Arc<Schema>>, String>,
}

/// Calls the tool once on `link`, which offers `catalog` where its service does not show that yet.
pub(super) async fn look(
    (gateway, link, catalog): (&Gateway, &Link, Option<&Arc<Catalog>>),
    service: Id<Service>,
    (check, timeout): (&FunctionalCheck, Duration),
    schemas: &mut Schemas,
) -> Finding {
    let tool = &check.tool;
    let arguments = serde_json::to_vec(&check.arguments).unwrap_or_default();
    let call = ToolCheck {
        service,
        tool: tool.clone(),
        arguments: Bytes::from(arguments),
        timeout,
        catalog: catalog.cloned(),
    };
    let reply = match gateway.check(link, call).await {
        Ok(reply) => reply,
        Err(failure) if failure.kind == Kind::Busy => return Finding::skip(failure.detail),
        Err(failure) => return Finding::fail(format!("`{tool}` does not work: {failure}")),
    };
    let answer = match ToolAnswer::read(&reply.result) {
        Ok(answer) => answer,
        Err(said) => return Finding::fail(format!("`{tool}` does not work: {said}")),
    };
    if let Err(said) = check.expect.judge(&answer) {
        return Finding::fail(format!("`{tool}` {said}"));
    }
    if !answer.is_error
        && let Err(finding) = schemas.judge(tool, &reply).await
    {
        return finding;
    }
    Finding::pass(format!("`{tool}` does what it should"))
}

impl Schemas {
    /// Whether the structured content is what the tool promises.
    async fn judge(&mut self, tool: &str, reply: &CheckReply) -> Result<(), Finding> {
        #[derive(Deserialize)]
        struct Structured<'a> {
            #[serde(borrow, default, rename = "structuredContent")]
            content: Option<&'a RawValue>,
        }
        let schema = match self.of(tool, &reply.definition).await {
            Ok(None) => return Ok(()),
            Ok(Some(schema)) => schema,
            Err(error) => {
                let message = format!("the output schema of `{tool}` cannot be used: {error}");
                return Err(Finding::warn(message));
            }
        };
        let read: Option<Structured<'_>> = serde_json::from_slice(&reply.result).ok();
        let Some(content) = read.and_then(|read| read.content) else {
            let message = format!("`{tool}` gives no structured content, which it promises");
            return Err(Finding::fail(message));
        };
        let text = content.get().to_owned();
        let checking = spawn_blocking(move || {
            let instance = schema.read(&text).map_err(|issue| vec![issue])?;
            schema.check(&instance)
        });
        match checking.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(issues)) => {
                let issues: Vec<String> = issues.iter().take(3).map(ToString::to_string).collect();
                let message = format!("`{tool}` breaks its output schema: {}", issues.join("; "));
                Err(Finding::fail(message))
            }
            // The runtime ends.
            Err(_) => Err(Finding::skip("The check was broken off")),
        }
    }

    async fn of(
        &mut self,
        tool: &str,
        definition: &Arc<RawValue>,
    ) -> Result<Option<Arc<Schema>>, String> {
        let known = self.0.get(tool);
        if let Some(known) = known.filter(|known| known.of.get() == definition.get()) {
            return known.schema.clone();
        }
        let of = Arc::clone(definition);
        let compiling = spawn_blocking(move || {
            let schema = OfTool::read(&of).output.map(Schema::compile).transpose();
            schema
                .map(|one| one.map(Arc::new))
                .map_err(|error| error.to_string())
        });
        let schema = compiling.await.map_err(|error| error.to_string())?;
        let compiled = Compiled {
            of: Arc::clone(definition),
            schema: schema.clone(),
        };
        self.0.insert(tool.to_owned(), compiled);
        schema
    }
}
