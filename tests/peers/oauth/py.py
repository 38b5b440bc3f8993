"""The OAuth client of the Python SDK. {"url": …, "tool": …, "arguments": {…}} is read from standard input; printed are
{"visit": address} and, when somebody let it in, {"text": what the tool said}.
"""

import json
import sys
import traceback
from urllib.parse import parse_qs, urlparse

import anyio
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.oauth2 import AuthorizationCodeResult
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientMetadata


def show(**entry):
    print(json.dumps(entry), flush=True)


class Kept:
    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


async def answer(listener):
    """The first request that asks for the callback."""
    async with await listener.accept() as stream:
        request = (await stream.receive(65536)).decode()
        body = "<title>client</title>Back in the client"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send((head + body).encode())
    query = parse_qs(urlparse(request.split(" ")[1]).query)
    one = {name: values[0] for name, values in query.items()}
    return AuthorizationCodeResult(code=one["code"], state=one.get("state"), iss=one.get("iss"))


async def main():
    asked = json.loads(sys.stdin.read())
    multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = multi.listeners[0]
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    redirect = f"http://127.0.0.1:{port}/callback"

    async def visit(url):
        show(visit=url)

    async def came():
        return await answer(listener)

    metadata = OAuthClientMetadata(
        client_name="Python SDK",
        redirect_uris=[redirect],
        token_endpoint_auth_method=asked.get("method", "none"),
    )
    provider = OAuthClientProvider(asked["url"], metadata, Kept(), redirect_handler=visit, callback_handler=came)
    http = create_mcp_http_client(auth=provider)
    transport = streamable_http_client(asked["url"], http_client=http)
    async with Client(transport, mode=asked.get("era", "auto")) as client:
        result = await client.call_tool(asked["tool"], asked["arguments"])
        show(text="\n".join(block.text for block in result.content))


try:
    anyio.run(main)
except BaseException:
    show(error=traceback.format_exc())
