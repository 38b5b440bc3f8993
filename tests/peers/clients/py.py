"""The Python SDK as a client, in the era that the request (or PEER_ERA) names: `legacy` (sessions),
`modern` (2026-07-28 and nothing else) or `auto` (asks first, falls back).

The request and the output are those of `exchange.mjs`, which describes them.
"""

import json
import os
import sys

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CreateMessageResult, ElicitResult, TextContent

DEADLINE_S = float(os.environ.get("PEER_DEADLINE_MS", "60000")) / 1000
MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}


def show(entry):
    print(json.dumps({key: value for key, value in entry.items() if value is not None}), flush=True)


def target(request):
    """What `Client` connects to: a command, or an endpoint with its key."""
    if "command" in request:
        return StdioServerParameters(
            command=request["command"],
            args=request.get("args", []),
            env={**os.environ, **request.get("env", {})},
        )
    headers = {"Authorization": f"Bearer {request['key']}"} if request.get("key") else {}
    return streamable_http_client(request["url"], http_client=create_mcp_http_client(headers=headers))


async def fill_in(context, params):
    """Answers a form: with the name Ada where it asks for one."""
    wanted = params.requested_schema.get("properties", {})
    content = {"name": "Ada"} if "name" in wanted else {}
    return ElicitResult(action="accept", content=content)


async def sample(context, params):
    """Answers as a model would: with what it was asked."""
    content = params.messages[0].content
    block = content[0] if isinstance(content, list) else content
    text = TextContent(type="text", text=f"you said: {block.text}")
    return CreateMessageResult(role="assistant", model="test", content=text, stop_reason="endTurn")


async def tool_names(client):
    names, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        names += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return names


async def call(client, wanted):
    steps = 0

    async def on_progress(progress, total, message):
        nonlocal steps
        steps += 1

    callback = on_progress if wanted.get("progress") else None
    result = await client.call_tool(
        wanted["tool"], wanted.get("arguments") or {}, progress_callback=callback
    )
    text = "\n".join(getattr(block, "text", f"[{block.type}]") for block in result.content)
    return {
        "text": text,
        "error": bool(result.is_error),
        "structured": result.structured_content,
        "progress": steps if callback else None,
    }


async def read(client, wanted):
    result = await client.read_resource(wanted["uri"])
    return {"text": "\n".join(getattr(part, "text", "[blob]") for part in result.contents)}


async def prompt(client, wanted):
    result = await client.get_prompt(wanted["name"], wanted.get("arguments"))
    return {"text": "\n".join(getattr(m.content, "text", "") for m in result.messages)}


async def attempt(act, client, wanted):
    try:
        return await act(client, wanted)
    except Exception as error:  # whatever the SDK raises is the answer that the test judges
        return {"text": str(error), "error": True}


def report(what, wanted, answer):
    """A call is right when it failed or not as expected, and its text holds what was expected."""
    ok = (
        bool(answer.get("error")) == bool(wanted.get("expect_error"))
        and wanted.get("expect_contains", "") in answer["text"]
        and (not wanted.get("progress") or (answer.get("progress") or 0) > 0)
    )
    show({**what, "ok": ok, **answer})
    return ok


async def exchange(request):
    era = request.get("era") or os.environ.get("PEER_ERA", "auto")
    ok = True
    async with Client(
        target(request),
        mode=MODES[era],
        elicitation_callback=fill_in,
        sampling_callback=sample,
    ) as client:
        names = await tool_names(client)
        missing = [tool for tool in request.get("expect_tools", []) if tool not in names]
        ok = ok and not missing
        show(
            {
                "client": f"py-{era}",
                "protocol": client.protocol_version,
                "tools": names,
                "missing": missing,
            }
        )
        kinds = [("calls", "tool", call), ("reads", "uri", read), ("prompts", "name", prompt)]
        for key, name, act in kinds:
            for wanted in request.get(key, []):
                answer = await attempt(act, client, wanted)
                label = "prompt" if key == "prompts" else name
                ok = report({label: wanted[name]}, wanted, answer) and ok
    return ok


async def main():
    text = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PEER_REQUEST")
    if not text:
        sys.exit("give the request as JSON: first argument or PEER_REQUEST")
    with anyio.fail_after(DEADLINE_S):
        return await exchange(json.loads(text))


if __name__ == "__main__":
    sys.exit(0 if anyio.run(main) else 1)
