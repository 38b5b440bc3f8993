"""The client of the conformance suite's client scenarios: Vaxel, with somebody behind it who uses it.

    client.py VAXEL URL

The suite serves at URL and looks at what reaches it. This starts Vaxel with that server as its only
service, lists and calls what the server offers, answers what it asks, and ends. What it says goes to
Vaxel as raw HTTP in the revision that the suite names, so that nothing but Vaxel speaks to the suite.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

VAXEL, URL = sys.argv[1], sys.argv[-1]
REVISION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
MODERN = REVISION >= "2026"
CAPABILITIES = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
PREFIX = "io.modelcontextprotocol/"
PATIENCE = 20
SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")


def visit(link):
    """Somebody at a browser. The suite lets everybody in at once."""
    try:
        urllib.request.urlopen(link, timeout=PATIENCE).read()
    except urllib.error.HTTPError as refusal:
        print(refusal.read().decode(), file=sys.stderr)


class Vaxel:
    """A Vaxel with one service, in a folder of its own."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        command = [VAXEL, "up", "--data-dir", self.folder.name, "--listen", "127.0.0.1:0", "--no-auth"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        run = os.path.join(self.folder.name, "run.json")
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(run):
            if time.monotonic() > deadline:
                sys.exit("Vaxel did not start")
            time.sleep(0.02)
        with open(run) as file:
            self.endpoint = json.load(file)["url"].rstrip("/") + "/mcp/up"
        if SCENARIO.startswith("auth/"):
            oauth = {key: CONTEXT[key] for key in ("client_id", "client_secret") if key in CONTEXT}
            if "client-credentials" in SCENARIO:
                oauth["grant"] = "client_credentials"
            self.run("service", "add", "up", "--url", URL, "--oauth", json.dumps(oauth), "--no-wait")
            if "grant" not in oauth:
                self.log_in()
            if not self.wait() and "grant" not in oauth:
                # The server sends its users elsewhere meanwhile.
                self.log_in()
                self.wait()
        else:
            self.run("service", "add", "up", "--url", URL)
        return self

    def wait(self):
        """Until the service is up; where it never is, the suite sees why."""
        deadline = time.monotonic() + PATIENCE / 4
        command = [VAXEL, "--data-dir", self.folder.name, "service", "show", "up", "--json"]
        while time.monotonic() < deadline:
            shown = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            if shown["status"]["lifecycle"] == "active":
                return True
            time.sleep(0.1)
        print(json.dumps(shown["status"]), file=sys.stderr)
        return False

    def log_in(self):
        """Goes where Vaxel sends its user."""
        command = [VAXEL, "--data-dir", self.folder.name, "service", "authorize", "up", "--no-wait"]
        # Where Vaxel refuses the authorization server there is none.
        link = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()
        if link:
            visit(link)

    def __exit__(self, *_):
        self.run("down")
        self.process.wait(PATIENCE)
        self.folder.cleanup()

    def run(self, *arguments):
        subprocess.run([VAXEL, "--data-dir", self.folder.name, *arguments], check=True)


class Client:
    """Speaks MCP of the suite's revision to an endpoint."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.session = None
        self.asked = 0
        self.visited = 0
        if not MODERN:
            client = {"name": "conformance", "version": "1"}
            self.ask(
                "initialize",
                {"protocolVersion": REVISION, "capabilities": CAPABILITIES, "clientInfo": client},
            )
            self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def post(self, message, headers=None):
        everything = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **(headers or {}),
        }
        if self.session:
            everything |= {"mcp-session-id": self.session, "mcp-protocol-version": REVISION}
        body = json.dumps(message).encode()
        request = urllib.request.Request(self.endpoint, data=body, headers=everything)
        try:
            return urllib.request.urlopen(request, timeout=PATIENCE)
        except urllib.error.HTTPError as refusal:
            return refusal

    def ask(self, method, params=None, headers=None):
        """The result of a request, whatever the server asks on the way."""
        self.asked += 1
        params, headers = dict(params or {}), dict(headers or {})
        if MODERN:
            params["_meta"] = {
                PREFIX + "protocolVersion": REVISION,
                PREFIX + "clientCapabilities": CAPABILITIES,
                PREFIX + "clientInfo": {"name": "conformance", "version": "1"},
            }
            headers |= {"mcp-protocol-version": REVISION, "mcp-method": method}
            if "name" in params:
                headers["mcp-name"] = params["name"]
        reply = self.post({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}, headers)
        self.session = reply.headers.get("mcp-session-id") or self.session
        said = self.read(reply)
        pages = (said.get("error", {}).get("data") or {}).get("elicitations") or []
        if pages and self.visited < 3:
            self.visited += 1
            for page in pages:
                visit(page["url"])
            return self.ask(method, params, headers)
        result = said.get("result") or {}
        if result.get("resultType") != "input_required":
            return result
        questions = result.get("inputRequests") or {}
        params["inputResponses"] = {key: answer(question) for key, question in questions.items()}
        params.pop("requestState", None)
        if "requestState" in result:
            params["requestState"] = result["requestState"]
        return self.ask(method, params, headers)

    def read(self, reply):
        """The answer in a body; questions in a stream are answered."""
        if "event-stream" not in (reply.headers.get("content-type") or ""):
            return json.loads(reply.read() or b"{}")
        for line in reply:
            if not line.startswith(b"data: ") or not line[6:].strip():
                continue
            message = json.loads(line[6:])
            if "method" not in message:
                return message
            if "id" in message:
                result = answer(message)
                self.post({"jsonrpc": "2.0", "id": message["id"], "result": result})
        return {}


def answer(question):
    """A form is filled in with its defaults, a model says something, there are no roots."""
    if question["method"] == "elicitation/create" and question["params"].get("mode") == "url":
        visit(question["params"]["url"])
        return {"action": "accept"}
    if question["method"] == "elicitation/create":
        schema = question["params"].get("requestedSchema") or {}
        fields = (schema.get("properties") or {}).items()
        content = {name: field["default"] for name, field in fields if "default" in field}
        return {"action": "accept", "content": content}
    if question["method"] == "sampling/createMessage":
        return {"role": "assistant", "model": "none", "content": {"type": "text", "text": "so"}}
    return {"roots": []}


def calls(tools):
    """What the suite wants to be called, else every tool with something for each argument."""
    if "toolCalls" in CONTEXT:
        return [(call["name"], call.get("arguments", {})) for call in CONTEXT["toolCalls"]]
    some = {"integer": 5, "number": 5, "boolean": True, "object": tools[0]["inputSchema"] if tools else {}}
    return [
        (tool["name"], {name: some.get(field.get("type"), "x") for name, field in fields(tool)})
        for tool in tools
    ]


def fields(tool):
    return (tool["inputSchema"].get("properties") or {}).items()


def mirrors(tool, arguments):
    """The headers by which a client of 2026-07-28 mirrors arguments."""
    found = {}
    for name, field in fields(tool):
        header, value = field.get("x-mcp-header"), arguments.get(name)
        if not MODERN or header is None or value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if text != text.strip() or not (text.isascii() and text.isprintable()) or text.startswith("=?"):
            text = "=?base64?" + base64.b64encode(text.encode()).decode() + "?="
        found["mcp-param-" + header] = text
    return found


def main():
    with Vaxel() as vaxel:
        client = Client(vaxel.endpoint)
        tools = client.ask("tools/list").get("tools", [])
        by_name = {tool["name"]: tool for tool in tools}
        for name, arguments in calls(tools):
            headers = mirrors(by_name[name], arguments) if name in by_name else {}
            client.ask("tools/call", {"name": name, "arguments": arguments}, headers)
        for prompt in client.ask("prompts/list").get("prompts", []):
            client.ask("prompts/get", {"name": prompt["name"]})


main()
