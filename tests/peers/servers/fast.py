"""A small FastMCP server that tests put behind Vaxel.

Over stdio by default; with PORT in the environment over Streamable HTTP on 127.0.0.1, at /mcp.
"""

import os

import anyio
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from mcp.types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

server = FastMCP("fast")


@server.tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool
def echo(message: str) -> str:
    """Gives back what it gets."""
    return message


@server.tool
async def slow(context: Context, steps: int = 3, pause_ms: int = 50) -> str:
    """Takes its time, and says how far it is."""
    for step in range(steps):
        await context.report_progress(step + 1, steps)
        await anyio.sleep(pause_ms / 1000)
    return f"done after {steps} steps"


cancellations = []


@server.tool
async def wait(context: Context) -> str:
    """Says how far it is until it is cancelled."""
    try:
        for step in range(600):
            await context.report_progress(step, 600)
            await anyio.sleep(0.1)
    except anyio.get_cancelled_exc_class():
        cancellations.append(context.request_id)
        raise
    return "nobody cancelled"


@server.tool
def cancelled() -> str:
    """How many calls of `wait` were cancelled."""
    return str(len(cancellations))


@server.tool
async def log(context: Context) -> str:
    """Logs a message."""
    await context.info("logged on purpose")
    return "logged"


@server.tool
def fail(reason: str = "on purpose") -> str:
    """Fails with the reason that it is given."""
    raise ToolError(f"failed: {reason}")


@server.tool
def point(x: float, y: float) -> dict[str, float]:
    """Answers with structured output."""
    return {"x": x, "y": y, "distance": (x * x + y * y) ** 0.5}


@server.tool
async def greet(context: Context):
    """Asks for a name first, and greets by it (2026-07-28)."""
    answers = context.input_responses
    if not answers:
        form = ElicitRequestFormParams(
            message="What is your name?",
            requested_schema={"type": "object", "properties": {"name": {"type": "string"}}},
        )
        return InputRequiredResult(
            input_requests={"name": ElicitRequest(params=form)}, request_state="asked for the name"
        )
    name = answers["name"].content["name"]
    return f"hello {name}, {context.request_state}"


@server.resource("fast://greeting")
def greeting() -> str:
    """A fixed text."""
    return "hello from fast"


@server.resource("fast://square/{number}")
def square(number: str) -> str:
    """The square of a number."""
    return str(int(number) ** 2)


@server.prompt
def review(topic: str) -> str:
    """Asks for a review."""
    return f"Please review {topic}."


if __name__ == "__main__":
    port = os.environ.get("PORT")
    if port:
        server.run(transport="http", host="127.0.0.1", port=int(port), show_banner=False)
    else:
        server.run(transport="stdio", show_banner=False)
