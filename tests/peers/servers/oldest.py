"""A server of MCP 2024-11-05 and nothing newer, over HTTP+SSE, with the standard library alone.

GET /sse opens a session and names the address for its messages; everything that the server says comes
on that stream. It listens on 127.0.0.1, at the port in PORT.
"""

import json
import os
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

REVISION = "2024-11-05"
GREETING, WATCHED = "oldest://greeting", "oldest://watched"
# Longer than any client waits.
LONGEST_S = 60
# After each step: some SDKs lose progress that arrives together with the answer.
PAUSE_S = 0.2

TOOLS = {
    "echo": "Gives back what it gets",
    "fail": "Fails always",
    "steps": "Says three times how far it is",
    "wait": "Says how far it is until it is cancelled",
    "cancelled": "How many calls of `wait` were cancelled",
    "ask_model": "Asks the client's model, and says what it said",
    "change": "Adds a tool, or takes it away again",
    "touch": "Says that the watched resource changed",
    "log": "Logs a message",
}

sessions = {}
cancelled = []
extra = threading.Event()


class Session:
    """One stream, and what its client said."""

    def __init__(self):
        self.outgoing = queue.Queue()
        self.watched = set()
        self.running = {}
        self.answers = {}
        self.asked = 0

    def send(self, **message):
        self.outgoing.put({"jsonrpc": "2.0", **message})

    def notify(self, method, **params):
        self.send(method=method, params=params)

    def ask(self, method, params):
        """Asks the client, and waits for its answer."""
        self.asked += 1
        id = f"question-{self.asked}"
        self.answers[id] = answer = queue.Queue()
        self.send(id=id, method=method, params=params)
        return answer.get(timeout=LONGEST_S)

    def receive(self, message):
        method, id = message.get("method"), message.get("id")
        if method is None:
            waiting = self.answers.pop(id, None)
            if waiting:
                waiting.put(message)
        elif method == "notifications/cancelled":
            running = self.running.get(message["params"]["requestId"])
            if running:
                running.set()
        elif id is not None:
            threading.Thread(target=self.answer, args=(id, method, message.get("params", {}))).start()

    def answer(self, id, method, params):
        self.running[id] = stop = threading.Event()
        try:
            result = METHODS[method](self, params, stop)
        except KeyError as missing:
            return self.send(id=id, error={"code": -32602, "message": f"there is no {missing}"})
        finally:
            self.running.pop(id, None)
        if not stop.is_set():
            self.send(id=id, result=result)


def text(words, failed=False):
    return {"content": [{"type": "text", "text": words}], "isError": failed}


def initialize(session, params, stop):
    changes = {"listChanged": True}
    return {
        "protocolVersion": REVISION,
        "capabilities": {
            "tools": changes,
            "prompts": {},
            "resources": {"subscribe": True},
            "logging": {},
        },
        "serverInfo": {"name": "oldest", "version": "1.0.0"},
    }


def list_tools(session, params, stop):
    names = [*TOOLS, "changed"] if extra.is_set() else TOOLS
    schema = {"type": "object"}
    return {"tools": [{"name": name, "description": TOOLS.get(name, ""), "inputSchema": schema} for name in names]}


def call_tool(session, params, stop):
    arguments = params.get("arguments") or {}
    token = params.get("_meta", {}).get("progressToken")
    match params["name"]:
        case "echo":
            return text(str(arguments.get("message")))
        case "fail":
            return text("failed on purpose", failed=True)
        case "steps":
            for step in range(1, 4):
                progress(session, token, step, 3)
                time.sleep(PAUSE_S)
            return text("done after 3 steps")
        case "wait":
            return wait(session, token, stop)
        case "cancelled":
            return text(str(len(cancelled)))
        case "ask_model":
            question = {"role": "user", "content": {"type": "text", "text": "how high?"}}
            answer = session.ask("sampling/createMessage", {"messages": [question], "maxTokens": 10})
            return text(f"the model: {answer['result']['content']['text']}")
        case "change":
            extra.clear() if extra.is_set() else extra.set()
            for each in list(sessions.values()):
                each.notify("notifications/tools/list_changed")
            return text("the list changed")
        case "touch":
            for each in list(sessions.values()):
                if WATCHED in each.watched:
                    each.notify("notifications/resources/updated", uri=WATCHED)
            return text("touched")
        case "log":
            session.notify("notifications/message", level="info", data="logged on purpose")
            return text("logged")
        case "changed":
            return text("here for now")
    raise KeyError(f"tool {params['name']}")


def progress(session, token, step, total):
    if token is not None:
        session.notify("notifications/progress", progressToken=token, progress=step, total=total)


def wait(session, token, stop):
    for step in range(LONGEST_S * 10):
        progress(session, token, step, LONGEST_S * 10)
        if stop.wait(0.1):
            cancelled.append(step)
            return None
    return text("nobody cancelled")


def list_resources(session, params, stop):
    return {"resources": [{"uri": GREETING, "name": "greeting"}, {"uri": WATCHED, "name": "watched"}]}


def read_resource(session, params, stop):
    return {"contents": [{"uri": params["uri"], "text": f"content of {params['uri']}"}]}


def subscribe(session, params, stop):
    session.watched.add(params["uri"])
    return {}


def unsubscribe(session, params, stop):
    session.watched.discard(params["uri"])
    return {}


def list_prompts(session, params, stop):
    return {"prompts": [{"name": "review", "arguments": [{"name": "topic", "required": True}]}]}


def get_prompt(session, params, stop):
    words = f"Please review {params['arguments']['topic']}."
    return {"messages": [{"role": "user", "content": {"type": "text", "text": words}}]}


def complete(session, params, stop):
    begun = params["argument"]["value"]
    topics = [topic for topic in ["lifts", "lights", "doors"] if topic.startswith(begun)]
    return {"completion": {"values": topics}}


def nothing(session, params, stop):
    return {}


METHODS = {
    "initialize": initialize,
    "ping": nothing,
    "logging/setLevel": nothing,
    "tools/list": list_tools,
    "tools/call": call_tool,
    "resources/list": list_resources,
    "resources/templates/list": lambda *_: {"resourceTemplates": []},
    "resources/read": read_resource,
    "resources/subscribe": subscribe,
    "resources/unsubscribe": unsubscribe,
    "prompts/list": list_prompts,
    "prompts/get": get_prompt,
    "completion/complete": complete,
}


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if urlparse(self.path).path != "/sse":
            return self.send_error(404)
        number = f"session-{time.monotonic_ns()}"
        session = sessions[number] = Session()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self.event("endpoint", f"/message?session={number}")
            while True:
                try:
                    self.event("message", json.dumps(session.outgoing.get(timeout=1)))
                except queue.Empty:
                    self.wfile.write(b": still here\n\n")
        except OSError:
            pass
        finally:
            del sessions[number]
            for stop in list(session.running.values()):
                stop.set()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        address = urlparse(self.path)
        session = sessions.get(parse_qs(address.query).get("session", [""])[0])
        if address.path != "/message" or session is None:
            return self.send_error(404)
        session.receive(json.loads(body))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def event(self, name, data):
        self.wfile.write(f"event: {name}\ndata: {data}\n\n".encode())

    def log_message(self, *args):
        """Says nothing of each request."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Door)
    server.daemon_threads = True
    server.serve_forever()
