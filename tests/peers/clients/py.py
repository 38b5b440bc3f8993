"""The Python SDK as a client, in the era that the request names: `legacy` (sessions) or `modern`
(2026-07-28 and nothing else).

What it is asked and what it prints is described in `things.mjs`; the things are the same here.
"""

import json
import os
import sys
import warnings
from contextlib import AsyncExitStack

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import (
    CreateMessageResult,
    ElicitResult,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
)

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}
MODERN = "2026-07-28"


def show(**entry):
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


class Heard:
    """The notifications that came, for whoever waits for one."""

    def __init__(self):
        self.all = []
        self.more = anyio.Event()

    async def add(self, message):
        if hasattr(message, "method"):
            self.all.append(message)
            self.more.set()
            self.more = anyio.Event()

    async def next(self, mark, fits):
        """The place behind the next one that fits, from `mark` on."""
        while True:
            more = self.more
            for at, message in enumerate(self.all[mark:], mark):
                if fits(message):
                    return at + 1
            await more.wait()


class Peer:
    """A connected client, and what the things need of it."""

    def __init__(self, client, heard):
        self.client, self.heard = client, heard
        self.is_modern = client.protocol_version == MODERN

    async def pages(self, ask, member):
        found, cursor = [], None
        while True:
            page = await ask(cursor=cursor, cache_mode="bypass")
            found += getattr(page, member)
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def names(self, kind):
        if kind == "tools":
            return [tool.name for tool in await self.pages(self.client.list_tools, "tools")]
        found = await self.pages(self.client.list_resources, "resources")
        return [str(resource.uri) for resource in found]

    async def call(self, tool, arguments=None, **options):
        result = await self.client.call_tool(tool, arguments or {}, **options)
        text = "\n".join(getattr(block, "text", f"[{block.type}]") for block in result.content)
        return text, bool(result.is_error)

    async def watch(self, stack, kind=None, uri=None):
        """Asks to hear of changes; a legacy client hears of lists without asking."""
        if self.is_modern:
            lists = {f"{kind}_list_changed": True} if kind else {}
            uris = [uri] if uri else []
            listening = self.client.listen(**lists, resource_subscriptions=uris)
            await stack.enter_async_context(listening)
        elif uri:
            await self.client.subscribe_resource(uri)
            stack.push_async_callback(self.client.unsubscribe_resource, uri)


async def answers(peer, wanted, **options):
    """Calls a tool, again when it is a switch that first has to be off, and looks at the answer."""
    for _ in range(2):
        text, failed = await peer.call(wanted["tool"], wanted.get("arguments"), **options)
        if wanted.get("until", "") in text:
            break
    if failed != wanted.get("fails", False):
        raise AssertionError(f"an error, or none: {text}")
    holds(text, wanted.get("expect", ""))


def holds(text, expected):
    if expected not in text:
        raise AssertionError(f"expected {expected}, got {text}")


async def tool(peer, wanted):
    names = await peer.names("tools")
    for call in wanted["calls"]:
        if call["tool"] not in names:
            raise AssertionError(f"{call['tool']} is not listed")
        await answers(peer, call)


async def resource(peer, wanted):
    if wanted["uri"] not in await peer.names("resources"):
        raise AssertionError(f"{wanted['uri']} is not listed")
    result = await peer.client.read_resource(wanted["uri"])
    holds("\n".join(getattr(part, "text", "[blob]") for part in result.contents), wanted["expect"])


async def prompt(peer, wanted):
    result = await peer.client.get_prompt(wanted["name"], wanted.get("arguments"))
    holds("\n".join(getattr(m.content, "text", "") for m in result.messages), wanted["expect"])


async def completion(peer, wanted):
    ref = wanted["ref"]
    is_prompt = ref["type"] == "ref/prompt"
    ref = PromptReference(**ref) if is_prompt else ResourceTemplateReference(**ref)
    result = await peer.client.complete(ref, wanted["argument"])
    holds(" ".join(result.completion.values), wanted["expect"])


async def progress(peer, wanted):
    steps = []

    async def on_progress(progress, total, message):
        steps.append(progress)

    await answers(peer, wanted, progress_callback=on_progress)
    if not steps:
        raise AssertionError("no progress was told")


async def change_of_list(peer, wanted):
    """After a notification the list is another one."""
    kind = wanted["kind"]
    before = await peer.names(kind)
    method = f"notifications/{kind}/list_changed"
    async with AsyncExitStack() as stack:
        await peer.watch(stack, kind=kind)
        mark = len(peer.heard.all)
        await answers(peer, wanted)
        while True:
            mark = await peer.heard.next(mark, lambda message: message.method == method)
            if await peer.names(kind) != before:
                return


async def update(peer, wanted):
    def fits(message):
        told = message.method == "notifications/resources/updated"
        return told and str(message.params.uri) == wanted["uri"]

    async with AsyncExitStack() as stack:
        await peer.watch(stack, uri=wanted["uri"])
        mark = len(peer.heard.all)
        await answers(peer, wanted)
        await peer.heard.next(mark, fits)


async def cancel(peer, wanted):
    """A call that runs, as its progress shows, ends unanswered, and where the server counts, it knows."""

    async def count():
        return (await peer.call(wanted["witness"]))[0] if "witness" in wanted else None

    before = await count()
    running, got = anyio.Event(), []

    async def on_progress(progress, total, message):
        running.set()

    async def call():
        got.append(
            await peer.call(wanted["tool"], wanted.get("arguments"), progress_callback=on_progress)
        )
        running.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await running.wait()
        tasks.cancel_scope.cancel()
    if got:
        raise AssertionError(f"it was answered all the same: {got}")
    while "witness" in wanted and await count() == before:
        await anyio.sleep(0.05)


async def log(peer, wanted):
    def fits(message):
        return message.method == "notifications/message" and wanted["expect"] in str(message.params.data)

    if not peer.is_modern:
        await peer.client.set_logging_level("debug")
    mark = len(peer.heard.all)
    await answers(peer, {**wanted, "expect": ""})
    await peer.heard.next(mark, fits)


THINGS = {
    "tool": tool,
    "resource": resource,
    "prompt": prompt,
    "completion": completion,
    "error": answers,
    "form": answers,
    "sampling": answers,
    "progress": progress,
    "list": change_of_list,
    "update": update,
    "cancel": cancel,
    "log": log,
}


async def exchange(request):
    heard = Heard()
    async with Client(
        target(request),
        mode=MODES[request["era"]],
        elicitation_callback=fill_in,
        sampling_callback=sample,
        message_handler=heard.add,
        log_level="debug",
    ) as client:
        peer = Peer(client, heard)
        for thing, wanted in request["things"].items():
            try:
                with anyio.fail_after(request["patience"][thing] / 1000):
                    await THINGS[thing](peer, wanted)
                show(thing=thing, outcome="works")
            except Exception as error:  # whatever the SDK raises is the outcome that the test judges
                show(thing=thing, outcome="fails", why=f"{type(error).__name__}: {error}")
        return client.protocol_version


async def main():
    # What is deprecated still has to be bridged.
    warnings.simplefilter("ignore")
    async for line in anyio.wrap_file(sys.stdin):
        protocol, why = None, None
        try:
            protocol = await exchange(json.loads(line))
        except Exception as error:
            why = f"no connection: {type(error).__name__}: {error}"
        show(done=True, protocol=protocol, why=why)


if __name__ == "__main__":
    anyio.run(main)
