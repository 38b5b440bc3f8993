use serde_json::json;

use super::*;

#[track_caller]
fn read(text: &str) -> (Value, Vec<String>) {
    let imported = import(text).unwrap();
    let drafts = imported
        .drafts
        .iter()
        .map(|draft| (draft.name.to_string(), serde_json::to_value(draft).unwrap()));
    let issues = imported
        .refused
        .iter()
        .chain(&imported.issues)
        .map(|issue| format!("{}: {}", issue.path, issue.message));
    (Value::Object(drafts.collect()), issues.collect())
}

#[test]
fn claude_desktop() {
    let (drafts, issues) = read(
        r#"{"globalShortcut": "", "mcpServers": {
            "filesystem": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/tmp"]},
            "My Notes!": {"command": "uvx", "args": ["notes"], "env": {"TOKEN": "t", "PORT": 1}, "disabled": true},
            "vaxel": {"command": "/usr/local/bin/vaxel", "args": ["stdio"]}
        }}"#,
    );
    assert_eq!(
        drafts["filesystem"]["spec"]["source"],
        json!({"process": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/tmp"]}})
    );
    assert_eq!(drafts["filesystem"]["enabled"], true);
    assert_eq!(
        drafts["my-notes"]["spec"]["source"]["process"]["env"],
        json!({"TOKEN": "t", "PORT": "1"})
    );
    assert_eq!(drafts["my-notes"]["enabled"], false);
    assert_eq!(
        issues,
        [
            "mcpServers.My Notes!: is imported as `my-notes`",
            "mcpServers.vaxel: is Vaxel itself, which would call itself without end: left out",
        ]
    );
}

#[test]
fn claude_code_with_servers_of_single_folders() {
    let (drafts, issues) = read(
        r#"{"numStartups": 7, "mcpServers": {"hub": {"type": "http", "url": "https://mcp.example.com/mcp", "headers": {"Authorization": "Bearer ${HUB_TOKEN:-none}"}}},
            "projects": {"/home/me/a": {"mcpServers": {"hub": {"type": "stdio", "command": "node", "args": ["server.js"]}}}, "/home/me/b": {"history": []}}}"#,
    );
    assert_eq!(
        drafts["hub"]["spec"]["source"]["mcp"]["url"],
        "https://mcp.example.com/mcp"
    );
    assert_eq!(
        drafts["hub-2"]["spec"]["source"]["process"]["command"],
        "node"
    );
    assert_eq!(
        issues,
        [
            "mcpServers.hub: uses the placeholder `${HUB_TOKEN:-none}`: set the value with `vaxel \
             service edit`",
            "projects./home/me/a.mcpServers.hub: is imported as `hub-2`",
        ]
    );
}

#[test]
fn cursor_and_windsurf() {
    let (drafts, issues) = read(
        r#"{"mcpServers": {
            "docs": {"url": "https://docs.example.com/sse"},
            "figma": {"serverUrl": "http://127.0.0.1:3845/mcp", "headers": {"X-Key": "${env:FIGMA}"}},
            "db": {"command": "${workspaceFolder}/run", "args": ["--root", "${workspaceFolder}"], "cwd": "tools", "envFile": ".env", "disabledTools": ["drop_*"]}
        }}"#,
    );
    assert_eq!(
        drafts["figma"]["spec"]["source"]["mcp"]["url"],
        "http://127.0.0.1:3845/mcp"
    );
    assert_eq!(drafts["db"]["spec"]["tools"], json!({"deny": ["drop_*"]}));
    assert_eq!(
        drafts["db"]["spec"]["source"]["process"]["cwd"],
        Value::Null
    );
    let begins: Vec<String> = issues
        .iter()
        .map(|issue| issue.chars().take(52).collect())
        .collect();
    assert_eq!(
        begins,
        [
            "mcpServers.db: has the working directory `tools`, wh",
            "mcpServers.db: uses the placeholder `${workspaceFold",
            "mcpServers.db: has `envFile`, which only the client ",
            "mcpServers.figma: uses the placeholder `${env:FIGMA}",
        ]
    );
}

#[test]
fn vs_code_with_comments_in_either_of_its_files() {
    let own = "{\n // the servers\n \"inputs\": [{\"id\": \"key\",},],\n \"servers\": { /* one */ \"gh\": {\"type\": \"http\", \"url\": \"https://x/mcp//y\", \"headers\": {\"A\": \"${input:key}\",},}, },\n}";
    let settings = format!("{{\"editor.tabSize\": 2, \"mcp\": {own}}}");
    for text in [own, &settings] {
        let (drafts, issues) = read(text);
        assert_eq!(
            drafts["gh"]["spec"]["source"]["mcp"]["url"],
            "https://x/mcp//y"
        );
        assert!(
            issues.len() == 1 && issues[0].contains("${input:key}"),
            "{issues:?}"
        );
    }
}

#[test]
fn zed_in_both_of_its_forms() {
    let (drafts, issues) = read(
        r#"{"theme": "One", "context_servers": {
            "old": {"command": {"path": "uvx", "args": ["a"], "env": {"K": "v"}}, "settings": {}},
            "new": {"source": "custom", "enabled": false, "command": "npx", "args": ["-y", "b"], "env": {}},
            "extension": {"source": "extension", "settings": {}}
        }}"#,
    );
    assert_eq!(
        drafts["old"]["spec"]["source"]["process"],
        json!({"command": "uvx", "args": ["a"], "env": {"K": "v"}})
    );
    assert_eq!(
        drafts["new"]["spec"]["source"]["process"],
        json!({"command": "npx", "args": ["-y", "b"]})
    );
    assert_eq!(drafts["new"]["enabled"], false);
    assert_eq!(
        issues,
        ["context_servers.extension: has neither a `command` nor a `url`"]
    );
}

#[test]
fn codex_and_opencode() {
    let codex = json!({"model": "x", "mcp_servers": {
        "time": {"command": "uvx", "args": ["mcp-server-time"], "enabled_tools": ["now"]},
        "hub": {"url": "https://hub.example.com/mcp", "bearer_token_env_var": "HUB"},
    }});
    let imported = from_value(&codex).unwrap();
    assert_eq!(
        imported.drafts[1].spec.tools.allow,
        Some(vec!["now".to_owned()])
    );
    assert!(imported.issues[0].message.contains("bearer_token_env_var"));
    let (drafts, issues) = read(
        r#"{"mcp": {"w": {"type": "local", "command": ["npx", "-y", "w"], "environment": {"A": "b"}, "enabled": true}}}"#,
    );
    assert_eq!(
        drafts["w"]["spec"]["source"]["process"],
        json!({"command": "npx", "args": ["-y", "w"], "env": {"A": "b"}})
    );
    assert_eq!(issues, [] as [&str; 0]);
}

#[test]
fn what_cannot_be_used_is_named() {
    let (drafts, issues) = read(
        r#"{"mcpServers": {"a": {}, "b": {"type": "sse", "url": "http://x/sse"}, "c": 5, "d": {"type": "ws", "url": "ws://x"}, "日本": {"command": "x"}}}"#,
    );
    assert_eq!(drafts["b"]["spec"]["source"]["mcp"]["url"], "http://x/sse");
    assert_eq!(drafts.as_object().unwrap().len(), 1, "{drafts}");
    assert_eq!(issues.len(), 4, "{issues:?}");
    assert!(import("{}").is_err() && import("nonsense").is_err());
}

#[test]
fn equal_names_are_numbered() {
    let (drafts, _) = read(r#"{"servers": {"A b": {"command": "x"}, "a-b": {"command": "y"}}}"#);
    assert_eq!(drafts["a-b"]["spec"]["source"]["process"]["command"], "x");
    assert_eq!(drafts["a-b-2"]["spec"]["source"]["process"]["command"], "y");
}
