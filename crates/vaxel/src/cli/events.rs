//! `vaxel events`.

use serde_json::Value;
use vaxel_client::{Client, segment};

use super::Context;
use crate::output;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Go on with changes as they happen
    #[arg(short, long)]
    follow: bool,
    /// Of this type, such as service.create; `*` stands for any run of characters
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Those after this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Without --follow: so many
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    pub(super) format: super::Format,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    if args.follow {
        return follow(args, &client, context).await;
    }
    let page: Value = client.get(&question(args, args.after)).await?;
    if page["reset"] == true {
        reset(&page["newest"]);
    }
    for item in page["items"].as_array().into_iter().flatten() {
        print(item, context);
    }
    Ok(())
}

fn question(args: &Args, after: Option<u64>) -> String {
    let mut query = Vec::new();
    query.extend(after.map(|number| format!("after={number}")));
    if !args.types.is_empty() {
        query.push(format!("types={}", segment(&args.types.join(","))));
    }
    if !args.follow {
        query.push(format!("limit={}", args.limit));
    }
    format!("/api/v1/events?{}", query.join("&"))
}

/// Until the server ends it, or nobody reads; a connection that breaks is made anew.
async fn follow(args: &Args, client: &Client, context: &Context) -> anyhow::Result<()> {
    let mut after = args.after;
    loop {
        let mut events = client.stream(&question(args, after)).await?;
        // What breaks here is taken up above, at the number that was read last.
        while let Ok(Some((kind, data))) = events.next().await {
            let item: Value = serde_json::from_str(&data).unwrap_or_default();
            match kind.as_str() {
                "reset" => {
                    after = item["newest"].as_u64();
                    reset(&item["newest"]);
                }
                "end" => {
                    let reason = item["reason"].as_str().unwrap_or_default();
                    output::note(format!("The feed ended: {reason}"));
                    return Ok(());
                }
                _ => {
                    after = item["number"].as_u64().or(after);
                    print(&item, context);
                }
            }
            if !output::is_read() {
                return Ok(());
            }
        }
        if after.is_none() {
            let page: Value = client.get("/api/v1/events?limit=1").await?;
            after = page["newest"].as_u64();
        }
    }
}

fn reset(newest: &Value) {
    output::note(format!(
        "… changes in between are not kept any more; this goes on after number {newest}"
    ));
}

fn print(item: &Value, context: &Context) {
    if context.style.json {
        output::line(item);
        return;
    }
    let text = |key: &str| item[key].as_str().unwrap_or_default();
    let mut line = format!(
        "{} {} {} {}",
        text("at"),
        item["number"],
        text("type"),
        text("name")
    );
    let detail = &item["detail"];
    if let (Some(from), Some(to)) = (detail["from"].as_str(), detail["to"].as_str()) {
        line = format!("{line}: {from} → {to}");
    }
    for (word, value) in [
        (" by ", text("by")),
        (": ", text("message")),
        (": ", detail["reason"].as_str().unwrap_or_default()),
    ] {
        if !value.is_empty() {
            line.push_str(word);
            line.push_str(value);
        }
    }
    output::line(line);
}
