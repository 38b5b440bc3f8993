"""A server of both eras on the low-level Python SDK, with everything that the matrix test looks for.

It serves stdio. A client of either era finds the same tools: a legacy one is asked by requests in the
middle of its call, a modern one by an `input_required` result.
"""

import warnings

import anyio
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp import types

MODERN = "2026-07-28"
GREETING, WATCHED = "both://greeting", "both://watched"
FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
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
    "ask_name": "Asks for a name by a form, and greets by it",
    "ask_model": "Asks the client's model, and says what it said",
    "change": "Adds a tool, or takes it away again",
    "touch": "Says that the watched resource changed",
    "log": "Logs a message",
}


class Told:
    """What the server remembers."""

    changed = False
    cancelled = 0
    watched = set()


bus = InMemorySubscriptionBus()


def text(words):
    return types.CallToolResult(content=[types.TextContent(type="text", text=words)])


def is_modern(context):
    return context.protocol_version == MODERN


async def list_tools(context, params):
    names = {**TOOLS, **({"changed": "Comes and goes"} if Told.changed else {})}
    tools = [
        types.Tool(name=name, description=about, input_schema={"type": "object"})
        for name, about in names.items()
    ]
    # A list that is taken from a cache would not show that it changed.
    return types.ListToolsResult(tools=tools)


async def call_tool(context, params):
    arguments = params.arguments or {}
    match params.name:
        case "echo":
            return text(str(arguments.get("message")))
        case "fail":
            failed = text("failed on purpose")
            return failed.model_copy(update={"is_error": True})
        case "steps":
            for step in range(1, 4):
                await context.session.report_progress(step, 3)
                await anyio.sleep(PAUSE_S)
            return text("done after 3 steps")
        case "wait":
            return await wait(context)
        case "cancelled":
            return text(str(Told.cancelled))
        case "ask_name":
            return await ask_name(context, params)
        case "ask_model":
            return await ask_model(context, params)
        case "change":
            Told.changed = not Told.changed
            await tell(context, ToolsListChanged())
            return text("the list changed")
        case "touch":
            await tell(context, ResourceUpdated(uri=WATCHED))
            return text("touched")
        case "log":
            await context.session.send_log_message(
                "info", "logged on purpose", related_request_id=context.request_id
            )
            return text("logged")
        case "changed":
            return text("here for now")
    raise ValueError(f"there is no tool {params.name}")


async def wait(context):
    try:
        for step in range(LONGEST_S * 10):
            await context.session.report_progress(step, LONGEST_S * 10)
            await anyio.sleep(0.1)
    except anyio.get_cancelled_exc_class():
        Told.cancelled += 1
        raise
    return text("nobody cancelled")


async def ask_name(context, params):
    message = "What is your name?"
    if not is_modern(context):
        answer = await context.session.elicit_form(
            message, FORM, related_request_id=context.request_id
        )
    elif params.input_responses:
        answer = params.input_responses["name"]
    else:
        form = types.ElicitRequestFormParams(message=message, requested_schema=FORM)
        return types.InputRequiredResult(input_requests={"name": types.ElicitRequest(params=form)})
    return text(f"hello {answer.content['name']}")


async def ask_model(context, params):
    block = types.TextContent(type="text", text="how high?")
    messages = [types.SamplingMessage(role="user", content=block)]
    if not is_modern(context):
        answer = await context.session.create_message(
            messages, max_tokens=10, related_request_id=context.request_id
        )
    elif params.input_responses:
        answer = params.input_responses["model"]
    else:
        wanted = types.CreateMessageRequestParams(messages=messages, max_tokens=10)
        request = types.CreateMessageRequest(params=wanted)
        return types.InputRequiredResult(input_requests={"model": request})
    return text(f"the model: {answer.content.text}")


async def tell(context, event):
    """Tells the listeners of either era."""
    await bus.publish(event)
    if is_modern(context):
        return
    if isinstance(event, ToolsListChanged):
        await context.session.send_tool_list_changed()
    elif event.uri in Told.watched:
        await context.session.send_resource_updated(event.uri)


async def list_resources(context, params):
    names = {GREETING: "greeting", WATCHED: "watched"}
    resources = [types.Resource(uri=uri, name=name) for uri, name in names.items()]
    return types.ListResourcesResult(resources=resources)


async def read_resource(context, params):
    content = types.TextResourceContents(uri=params.uri, text=f"content of {params.uri}")
    return types.ReadResourceResult(contents=[content])


async def subscribe(context, params):
    Told.watched.add(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(context, params):
    Told.watched.discard(str(params.uri))
    return types.EmptyResult()


async def list_prompts(context, params):
    topic = types.PromptArgument(name="topic", required=True)
    return types.ListPromptsResult(prompts=[types.Prompt(name="review", arguments=[topic])])


async def get_prompt(context, params):
    block = types.TextContent(type="text", text=f"Please review {params.arguments['topic']}.")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=block)])


async def complete(context, params):
    topics = [topic for topic in ["lifts", "lights", "doors"] if topic.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=topics))


async def set_level(context, params):
    return types.EmptyResult()


async def main():
    # What is deprecated still has to be bridged.
    warnings.simplefilter("ignore")
    server = Server(
        "both",
        version="1.0.0",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=set_level,
    )
    changes = NotificationOptions(tools_changed=True)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options(changes))


if __name__ == "__main__":
    anyio.run(main)
