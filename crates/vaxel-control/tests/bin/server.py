"""A stdio MCP server of the legacy era, scripted by its arguments.

    server.py ok                 answers, forever
    server.py die-after FILE N   answers until a tool call, then exits with code 3, N times in all
                                 (counted in FILE); afterwards it stays
    server.py silent             never answers
    server.py slow SECONDS       answers, but only after that time
    server.py deaf               answers, but no tool call
    server.py drowsy SECONDS     answers, but `greet` takes that time
    server.py freeze FILE        answers up to and with its first tool call, then nothing more; with
                                 FILE there, which it makes then, it answers forever
    server.py grow FILE          answers, and offers one tool more when FILE is there
    server.py touchy FILE        answers, but exits when it is asked for its era; counts its starts in
                                 FILE, by bytes
    server.py lie FILE           answers, but its tool `greet` says something else while FILE is there;
                                 counts its starts in FILE.starts and the calls of `greet` in FILE.calls,
                                 by bytes
    server.py lie-once FILE      the same, but lies from its second call on, if it is the first that
                                 makes FILE
    server.py typed TYPE         answers, and promises structured content of TYPE from `greet`, which
                                 gives {"n": 1}
    server.py shout              writes to standard error, then exits with code 7
"""
import json
import os
import sys
import time

mode = sys.argv[1]


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def deaths():
    try:
        with open(sys.argv[2]) as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def count(what):
    with open(sys.argv[2] + "." + what, "a") as file:
        file.write(".")


def result_of(method, params):
    if method == "initialize":
        return {
            "protocolVersion": params.get("protocolVersion", "2025-06-18"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"},
        }
    if method == "tools/list":
        names = ["greet", "env", "pid"]
        if mode == "grow" and os.path.exists(sys.argv[2]):
            names.append("late")
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
        if mode == "typed":
            n = {"type": sys.argv[2]}
            tools[0]["outputSchema"] = {"type": "object", "properties": {"n": n}}
        return {"tools": tools}
    if method == "tools/call":
        name = params["name"]
        if name == "env":
            text = os.environ.get(params["arguments"]["name"], "")
        elif name == "pid":
            text = str(os.getpid())
        else:
            text = "hello"
            if mode == "drowsy":
                time.sleep(float(sys.argv[2]))
            if mode == "lie":
                count("calls")
                text = "goodbye" if os.path.exists(sys.argv[2]) else text
            if mode == "lie-once" and lies:
                text = "goodbye" if told else text
                told.append(text)
            if mode == "typed":
                return {"content": [], "structuredContent": {"n": 1}}
        return {"content": [{"type": "text", "text": text}]}
    if method == "ping":
        return {}
    return None


if mode == "shout":
    print("the configuration is missing", file=sys.stderr)
    sys.exit(7)

if mode == "touchy":
    with open(sys.argv[2], "a") as file:
        file.write(".")

if mode == "lie":
    count("starts")

told = []
lies = False
if mode == "lie-once":
    try:
        os.close(os.open(sys.argv[2], os.O_CREAT | os.O_EXCL))
        lies = True
    except FileExistsError:
        pass

if mode == "slow":
    time.sleep(float(sys.argv[2]))

frozen = mode == "silent"
for line in sys.stdin:
    if frozen:
        continue
    message = json.loads(line)
    if "id" not in message:
        continue
    method = message.get("method")
    if method == "tools/call" and mode == "die-after" and deaths() < int(sys.argv[3]):
        count = deaths() + 1
        with open(sys.argv[2], "w") as file:
            file.write(str(count))
        sys.exit(3)
    if mode == "touchy" and method == "server/discover":
        sys.exit(1)
    if method == "tools/call" and mode == "deaf":
        continue
    result = result_of(method, message.get("params", {}))
    if result is None:
        error = {"code": -32601, "message": "no such method"}
        say({"jsonrpc": "2.0", "id": message["id"], "error": error})
    else:
        say({"jsonrpc": "2.0", "id": message["id"], "result": result})
    if method == "tools/call" and mode == "freeze" and not os.path.exists(sys.argv[2]):
        open(sys.argv[2], "w").close()
        frozen = True
