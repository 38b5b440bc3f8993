//! Clients of the systems that Vaxel takes the place of, with the requests that they know.

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, echo_server, wait_for};

fn told(door: &Door, verb: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    door.ask(verb, path, body)
        .unwrap_or_else(|error| panic!("{verb} {path}: {error}"))
}

fn ok(door: &Door, verb: &str, path: &str, body: Option<&Value>) -> Value {
    let (status, answer) = told(door, verb, path, body);
    assert!(
        (200..300).contains(&status),
        "{verb} {path}: {status} {answer}"
    );
    answer
}

/// The server of the AI Platform's document, with a script that is here.
fn file_system_server(vaxel: &TestVaxel) -> Value {
    json!({
        "name": "File System Server", "description": "Local file system access",
        "command": "python3", "args": [echo_server(vaxel.home.path())],
        "env": { "DEBUG": "1" }, "enabled": true
    })
}

#[test]
fn the_ai_platform_manages_its_servers() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let server = file_system_server(&vaxel);
    let (status, created) = told(&door, "POST", "/api/mcp", Some(&server));
    assert_eq!(status, 201, "{created}");
    let created = &created["server"];
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["name"], "File System Server");
    assert_eq!(
        (&created["command"], &created["enabled"]),
        (&json!("python3"), &json!(true))
    );
    assert!(
        !created.to_string().contains(r#""DEBUG":"1""#),
        "values are sealed: {created}"
    );
    // A second one of the same name is another one.
    let second = ok(&door, "POST", "/api/mcp", Some(&server));
    assert_ne!(second["server"]["id"], id);
    assert_eq!(second["server"]["name"], "File System Server");
    let path = format!("/api/mcp/{id}");

    let started = ok(&door, "POST", &format!("{path}/start"), None);
    assert_eq!(started["server"]["healthStatus"], "HEALTHY");
    assert_eq!(started["runtimeStatus"]["status"], "running");
    let execute = format!("{path}/execute");
    for call in [
        json!({ "toolName": "echo", "parameters": { "text": "hi" } }),
        json!({ "tool": "echo", "args": { "text": "hi" } }),
        json!({ "name": "echo", "arguments": { "text": "hi" } }),
    ] {
        let done = ok(&door, "POST", &execute, Some(&call));
        assert_eq!(done["success"], true);
        assert_eq!(done["result"]["content"][0]["text"], "hi");
        assert!(done["executionTime"].is_u64());
    }

    let shown = ok(&door, "GET", &path, None);
    assert_eq!(shown["runtimeStatus"]["status"], "running");
    assert!(shown["runtimeStatus"]["pid"].is_u64() && shown["runtimeStatus"]["uptime"].is_u64());
    wait_for("the calls to be on record", || {
        let shown = ok(&door, "GET", &path, None);
        shown["stats"]["totalCalls"] == 3 && shown["server"]["lastUsedAt"].is_string()
    });
    let shown = ok(&door, "GET", &path, None);
    assert!(shown["stats"]["averageExecutionTime"].is_number());
    let logs = ok(&door, "GET", &format!("{path}/logs"), None);
    let newest = &logs["logs"][0];
    assert_eq!(
        (&newest["toolName"], &newest["success"]),
        (&json!("echo"), &json!(true))
    );
    assert_eq!(newest["serverId"], id);

    let renamed = ok(
        &door,
        "PUT",
        &path,
        Some(&json!({ "description": "Files" })),
    );
    assert_eq!(renamed["server"]["description"], "Files");
    assert_eq!(
        renamed["server"]["name"], "File System Server",
        "what was not sent stays"
    );
    let list = ok(&door, "GET", "/api/mcp", None);
    assert_eq!(list["servers"].as_array().unwrap().len(), 2);
    let stopped = ok(&door, "POST", &format!("{path}/stop"), None);
    assert_eq!(stopped["server"]["enabled"], false);
    ok(&door, "DELETE", &path, None);
    let list = ok(&door, "GET", "/api/mcp", None);
    assert_eq!(list["servers"].as_array().unwrap().len(), 1);
    // Soft: it is in the archive.
    let archive = ok(&door, "GET", "/api/v1/services?deleted=true", None);
    assert_eq!(archive["items"][0]["id"], id);
}

#[test]
fn the_ai_platform_reads_its_own_errors() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let (status, told_) = told(&door, "GET", "/api/mcp/no-such-server", None);
    assert_eq!(status, 404);
    assert!(
        told_["error"].as_str().unwrap().contains("no-such-server"),
        "{told_}"
    );

    let mut broken = file_system_server(&vaxel);
    broken["command"] = json!("no-such-program-anywhere");
    let server = ok(&door, "POST", "/api/mcp", Some(&broken));
    let path = format!("/api/mcp/{}", server["server"]["id"].as_str().unwrap());
    let (status, answer) = told(&door, "POST", &format!("{path}/start"), None);
    assert_eq!(status, 500, "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("no-such-program-anywhere"),
        "{answer}"
    );

    let works = ok(&door, "POST", "/api/mcp", Some(&file_system_server(&vaxel)));
    let path = format!("/api/mcp/{}", works["server"]["id"].as_str().unwrap());
    ok(&door, "POST", &format!("{path}/start"), None);
    let execute = format!("{path}/execute");
    let (status, answer) = told(&door, "POST", &execute, Some(&json!({ "toolName": "die" })));
    assert_eq!(status, 400, "{answer}");
    assert!(!answer["error"].as_str().unwrap().is_empty());
    let (status, _) = told(&door, "POST", &execute, Some(&json!({ "parameters": {} })));
    assert_eq!(status, 400);

    vaxel.ok(&["user", "add", "other", "--program", "--role", "client"]);
    let reader = [
        "key",
        "create",
        "other",
        "--permission",
        "mcp:read",
        "--user",
        "other",
    ];
    let reader = vaxel.json(&reader);
    let door = Door {
        key: reader["key"].as_str().unwrap().to_owned(),
        ..door
    };
    let call = json!({ "toolName": "echo", "parameters": {} });
    assert_eq!(told(&door, "POST", &execute, Some(&call)).0, 403);
    assert_eq!(told(&door, "GET", "/api/mcp/admin/all", None).0, 403);
    // What others own is not among one's own.
    let own = ok(&door, "GET", "/api/mcp", None);
    assert_eq!(own["servers"], json!([]));
}

#[test]
fn the_ai_platforms_dashboard_and_figures_count_what_is_there() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let server = ok(&door, "POST", "/api/mcp", Some(&file_system_server(&vaxel)));
    let id = server["server"]["id"].as_str().unwrap();
    ok(&door, "POST", &format!("/api/mcp/{id}/start"), None);
    let mut broken = file_system_server(&vaxel);
    broken["command"] = json!("no-such-program-anywhere");
    ok(&door, "POST", "/api/mcp", Some(&broken));
    let dashboard = ok(&door, "GET", "/api/mcp/health/check", None);
    assert_eq!(
        dashboard["summary"],
        json!({ "total": 2, "healthy": 1, "unhealthy": 1 })
    );
    let servers = dashboard["servers"].as_array().unwrap();
    let well = servers.iter().find(|one| one["id"] == id).unwrap();
    assert_eq!(
        (&well["healthy"], &well["status"]),
        (&json!(true), &json!("HEALTHY"))
    );
    assert_eq!(well["name"], "File System Server");
    // It is checked when it is asked for, not only every half minute.
    let again = ok(&door, "GET", "/api/mcp/health/check", None);
    let check = |dashboard: &Value| {
        let servers = dashboard["servers"].as_array().unwrap();
        let well = servers.iter().find(|one| one["id"] == id).unwrap();
        well["lastCheck"].as_str().unwrap().to_owned()
    };
    assert!(check(&again) > check(&dashboard), "{dashboard} {again}");
    let all = ok(&door, "GET", "/api/mcp/admin/all", None);
    assert_eq!(all["servers"].as_array().unwrap().len(), 2);
    let figures = ok(&door, "GET", "/api/mcp/admin/statistics", None);
    let figures = &figures["statistics"];
    assert_eq!(
        (&figures["totalServers"], &figures["activeServers"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn devq_lists_checks_and_calls_services() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let script = echo_server(vaxel.home.path()).display().to_string();
    vaxel.add("context7-mcp", &["python3", &script]);
    let list = ok(&door, "GET", "/api/services", None);
    let registration = &list[0];
    assert_eq!(registration["name"], "context7-mcp");
    assert_eq!(
        (&registration["type"], &registration["protocol"]),
        (&json!("fastmcp"), &json!("stdio"))
    );
    let health = ok(&door, "GET", "/api/services/context7-mcp/health", None);
    assert_eq!(
        (&health["service"], &health["status"]),
        (&json!("context7-mcp"), &json!("healthy"))
    );
    assert_eq!(health["error"], Value::Null);

    let call = json!({ "tool": "echo", "args": { "text": "FastAPI patterns" } });
    let done = ok(
        &door,
        "POST",
        "/api/services/context7-mcp/call",
        Some(&call),
    );
    assert_eq!(done["content"][0]["text"], "FastAPI patterns");

    let (status, answer) = told(&door, "POST", "/api/services/stripe-mcp/call", Some(&call));
    assert_eq!(
        (status, &answer["detail"]),
        (404, &json!("Service stripe-mcp not found"))
    );
    vaxel.ok(&["service", "stop", "context7-mcp"]);
    // It takes a moment after the answer.
    let mut refused = (0, Value::Null);
    wait_for("the stop to be felt", || {
        let path = "/api/services/context7-mcp/call";
        refused = told(&door, "POST", path, Some(&call));
        refused.0 != 200
    });
    let (status, answer) = refused;
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .starts_with("No healthy instances of context7-mcp")
    );
}

/// A domain server over plain HTTP: its health, and tools that say what they were called with.
const DOMAIN_SERVER: &str = r#"
import http.server, json, sys
class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.reply({"status": "ok"})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.reply({"path": self.path, "with": json.loads(body)})
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// Ends with its block.
struct DomainServer(std::process::Child, u16);

impl DomainServer {
    fn start() -> Self {
        let mut child = std::process::Command::new("python3")
            .args(["-c", DOMAIN_SERVER])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        Self(child, line.trim().parse().unwrap())
    }

    /// What it says of itself, as in the `HappyOS` document.
    fn registration(&self) -> Value {
        json!({
            "id": "crypto-mcp", "url": format!("http://127.0.0.1:{}", self.1),
            "tools": ["create_wallet", "deploy_token"], "health_url": "/health"
        })
    }
}

impl Drop for DomainServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn happyos_servers_register_themselves_and_are_found() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let server = DomainServer::start();
    let registration = server.registration();
    // At every start of the server.
    for _ in 0..2 {
        let answer = ok(&door, "POST", "/register", Some(&registration));
        assert_eq!(answer, json!({ "status": "registered" }));
    }
    let services = ok(&door, "GET", "/services", None);
    let service = &services["crypto-mcp"];
    for field in ["url", "tools", "health_url"] {
        assert_eq!(service[field], registration[field], "{field}");
    }
    assert_eq!(service["status"], "healthy");
    assert!(service["last_seen"].is_string());
    let tools = ok(&door, "GET", "/service/crypto-mcp/tools", None);
    assert_eq!(tools, json!(["create_wallet", "deploy_token"]));
    assert_eq!(ok(&door, "GET", "/service/unknown/tools", None), json!([]));

    let ready = ok(
        &door,
        "GET",
        "/api/v1/services/crypto-mcp/health?wait=30s",
        None,
    );
    assert_eq!(ready["ready"], true, "{ready}");
    let shown = ok(&door, "GET", "/api/v1/services/crypto-mcp", None);
    assert_eq!(
        shown["version"], 1,
        "the second registration changed nothing"
    );
    let call = json!({ "tool": "create_wallet", "args": { "name": "mine" } });
    let done = ok(&door, "POST", "/api/services/crypto-mcp/call", Some(&call));
    assert_eq!(done["structuredContent"]["path"], "/tools/create_wallet");
    assert_eq!(done["structuredContent"]["with"], json!({ "name": "mine" }));

    let (status, answer) = told(&door, "POST", "/register", Some(&json!({ "id": "x" })));
    assert_eq!(status, 422, "{answer}");
}

#[test]
fn who_registers_again_changes_nothing_that_is_the_operators() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let server = DomainServer::start();
    let mut registration = server.registration();
    ok(&door, "POST", "/register", Some(&registration));
    let path = "/api/v1/services/crypto-mcp";
    let mut service = ok(&door, "GET", path, None);
    service["tags"] = json!(["money"]);
    service["spec"]["limits"] = json!({ "concurrency": 3 });
    let draft = json!({ "name": "crypto-mcp", "tags": service["tags"], "spec": service["spec"] });
    ok(&door, "PUT", path, Some(&draft));
    registration["tools"] = json!(["create_wallet"]);
    ok(&door, "POST", "/register", Some(&registration));
    let after = ok(&door, "GET", path, None);
    assert_eq!(after["tags"], json!(["money"]));
    assert_eq!(after["spec"]["limits"]["concurrency"], 3);
    assert_eq!(
        after["spec"]["source"]["http"]["tools"],
        json!(["create_wallet"])
    );

    vaxel.ok(&["service", "add", "files", "--disabled", "--", "true"]);
    registration["id"] = json!("files");
    let (status, answer) = told(&door, "POST", "/register", Some(&registration));
    assert_eq!(status, 409, "{answer}");
    assert!(
        answer["error"].as_str().unwrap().contains("process"),
        "{answer}"
    );
    let kept = ok(&door, "GET", "/api/v1/services/files", None);
    assert_eq!(kept["version"], 1);
}

#[test]
fn a_server_that_says_no_more_that_it_lives_is_unhealthy_and_then_gone() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let server = DomainServer::start();
    let mut registration = server.registration();
    // Long enough that it is seen between its first silence and its end, three times as late.
    registration["ttl"] = json!(5);
    ok(&door, "POST", "/register", Some(&registration));
    let mut brief = registration.clone();
    (brief["id"], brief["ttl"]) = (json!("brief"), json!(1));
    ok(&door, "POST", "/register", Some(&brief));
    let heard = ok(&door, "POST", "/api/v1/services/crypto-mcp/heartbeat", None);
    assert!(
        heard["expires_at"].as_str() > heard["heard_at"].as_str(),
        "{heard}"
    );
    wait_for("the silence to show", || {
        let services = ok(&door, "GET", "/services", None);
        services["crypto-mcp"]["status"] == "unhealthy"
    });
    ok(&door, "POST", "/register", Some(&registration));
    wait_for("its life to show", || {
        let services = ok(&door, "GET", "/services", None);
        services["crypto-mcp"]["status"] == "healthy"
    });
    wait_for("the other one to be removed", || {
        let services = ok(&door, "GET", "/services", None);
        services.get("brief").is_none()
    });
    let archive = ok(&door, "GET", "/api/v1/services?deleted=true", None);
    assert_eq!(archive["items"][0]["name"], "brief");
    vaxel.ok(&["service", "add", "plain", "--disabled", "--", "true"]);
    let (status, answer) = told(&door, "POST", "/api/v1/services/plain/heartbeat", None);
    assert_eq!(status, 409, "{answer}");
}

#[test]
fn stage_6_registers_changes_and_removes_services_in_its_own_form() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let service = json!({
        "name": "service_name", "description": "Service description", "type": "executable",
        "hosting_mode": "stdio", "tools": [], "routes": [], "status": "active", "tags": ["a"],
        "config": {
            "runtime": { "command": "python3", "args": [echo_server(vaxel.home.path())],
                         "timeout": "20s", "memory": "512MiB" },
            "security": { "deny_tools": ["die"] },
            "integration": { "depends_on": [] },
        }
    });
    let (status, created) = told(&door, "POST", "/api/v1/services", Some(&service));
    assert_eq!(status, 201, "{created}");
    let id = created["service_id"].as_str().unwrap();
    assert_eq!(
        (&created["id"], &created["name"]),
        (&json!(id), &json!("service_name"))
    );
    let path = format!("/api/v1/services/{id}");
    ok(&door, "GET", &format!("{path}/health?wait=30s"), None);
    let shown = ok(&door, "GET", &format!("{path}?form=stage6"), None);
    for field in ["name", "description", "type", "hosting_mode", "status"] {
        assert_eq!(shown[field], service[field], "{field}");
    }
    assert_eq!(shown["config"]["runtime"]["command"], "python3");
    assert_eq!(shown["config"]["security"]["deny_tools"], json!(["die"]));
    assert_eq!(shown["tools"], json!(["echo", "env"]));
    let canonical = ok(&door, "GET", &path, None);
    assert_eq!(
        (&canonical["id"], &canonical["service_id"]),
        (&json!(id), &json!(id))
    );

    let mut inactive = shown.clone();
    inactive["status"] = json!("inactive");
    let changed = ok(&door, "PUT", &path, Some(&inactive));
    assert_eq!(changed["status"], "inactive");
    let tools = ok(&door, "GET", &format!("{path}/tools"), None);
    assert_eq!(tools["items"].as_array().unwrap().len(), 2);
    ok(&door, "DELETE", &path, None);
    assert_eq!(told(&door, "GET", &path, None).0, 404);

    let function = json!({ "name": "x", "type": "function", "hosting_mode": "stdio" });
    let (status, answer) = told(&door, "POST", "/api/v1/services", Some(&function));
    assert_eq!(status, 422, "{answer}");
    assert!(
        answer["errors"].to_string().contains("`script`"),
        "{answer}"
    );
}

#[test]
fn servers_and_services_of_earlier_systems_are_made_from_templates_too() {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    let template = json!({
        "name": "echo", "approved": true,
        "parameters": { "text": { "type": "string", "default": "nothing" } },
        "spec": { "description": "Says ${text}", "source": { "process": {
            "command": "python3", "args": [echo_server(vaxel.home.path())], "env": { "SAYS": "${text}" }
        } } }
    });
    let (status, made) = told(&door, "POST", "/api/v1/templates", Some(&template));
    assert_eq!(status, 201, "{made}");
    let says = |path: String, text: &str| {
        let said = ok(
            &door,
            "POST",
            &path,
            Some(&json!({ "tool": "env", "args": { "text": "SAYS" } })),
        );
        assert!(said.to_string().contains(text), "{said}");
    };

    let server =
        json!({ "name": "One", "extends": { "template": "echo", "with": { "text": "a word" } } });
    let (status, made) = told(&door, "POST", "/api/mcp", Some(&server));
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["server"]["description"], "Says a word");
    let id = made["server"]["id"].as_str().unwrap();
    ok(&door, "POST", &format!("/api/mcp/{id}/start"), None);
    says(format!("/api/mcp/{id}/execute"), "a word");
    let other = json!({ "extends": { "template": "echo", "with": { "text": "more" } } });
    ok(&door, "PUT", &format!("/api/mcp/{id}"), Some(&other));
    ok(
        &door,
        "GET",
        &format!("/api/v1/services/{id}/health?wait=30s"),
        None,
    );
    says(format!("/api/mcp/{id}/execute"), "more");
    let unknown = json!({ "name": "Two", "extends": "nothing-like-it" });
    let (status, refused) = told(&door, "POST", "/api/mcp", Some(&unknown));
    assert_eq!(status, 422, "{refused}");
    assert!(refused.to_string().contains("nothing-like-it"), "{refused}");

    for (name, place) in [
        ("beside", "/extends"),
        ("within", "/config/integration/extends"),
    ] {
        let mut service = json!({
            "name": name, "type": "executable", "hosting_mode": "stdio",
            "config": { "integration": {}, "monitoring": {} }
        });
        let extends = json!({ "template": "echo", "with": { "text": name } });
        match place {
            "/extends" => service["extends"] = extends,
            _ => service["config"]["integration"]["extends"] = extends,
        }
        let (status, made) = told(&door, "POST", "/api/v1/services", Some(&service));
        assert_eq!(status, 201, "{made}");
        assert_eq!(made["config"]["runtime"]["command"], "python3");
        ok(
            &door,
            "GET",
            &format!("/api/v1/services/{name}/health?wait=30s"),
            None,
        );
        says(format!("/api/services/{name}/call"), name);
        // What is shown is understood, and leaves everything as it is.
        let shown = ok(
            &door,
            "GET",
            &format!("/api/v1/services/{name}?form=stage6"),
            None,
        );
        let same = ok(
            &door,
            "PUT",
            &format!("/api/v1/services/{name}"),
            Some(&shown),
        );
        assert_eq!(same["config"], shown["config"]);
    }
}
