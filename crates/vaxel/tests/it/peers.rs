//! A server of others that forgets its sessions.

use std::process::{Child, Command, Stdio};

use crate::harness::{TestVaxel, free_port, tools, wait_for};

#[test]
fn a_server_that_forgot_its_sessions_is_spoken_to_again() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start();
    let script =
        tools.join("npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    let serve = |port: u16| Server::start(&script.display().to_string(), port);
    let port = free_port();
    let first = serve(port);
    let url = format!("http://127.0.0.1:{port}/mcp");
    vaxel.ok(&["service", "add", "everything", "--url", &url]);
    let call = ["call", "everything__echo", "--arg", "message=x"];
    vaxel.ok(&call);
    // The same address, and no memory of any session.
    drop(first);
    let _again = serve(port);
    wait_for("the server to know us again", || {
        vaxel.cli(&call).status.success()
    });
}

/// `server-everything` over Streamable HTTP; ended when dropped.
struct Server(Child);

impl Server {
    fn start(script: &str, port: u16) -> Self {
        let child = Command::new("node")
            .args([script, "streamableHttp"])
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child);
        wait_for("an HTTP server to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
