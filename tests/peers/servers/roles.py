"""A bank whose tools want roles: it believes what a token of Vaxel says, and nothing else.

    roles.py JWKS_URL ISSUER AUDIENCE [PORT [HEADER]]

Over stdio it looks for the token in `_meta`, with PORT over Streamable HTTP in HEADER. It answers a call with
what the token says.
"""

import sys

import jwt
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_http_request

keys, issuer, audience = sys.argv[1:4]
port = int(sys.argv[4]) if len(sys.argv) > 4 else None
header = sys.argv[5] if len(sys.argv) > 5 else "x-vaxel-identity"
server = FastMCP("roles")
jwks = jwt.PyJWKClient(keys, cache_jwk_set=False)


def token_of(context):
    if port is None:
        meta = context.request_context.meta
        return dict(meta or {}).get("dev.vaxel/identity")
    value = get_http_request().headers.get(header, "")
    return value.removeprefix("Bearer ")


def require(context, role):
    """What the caller's token says, when it is good and has this role."""
    token = token_of(context)
    if not token:
        raise ToolError("401: who are you?")
    try:
        if jwt.get_unverified_header(token).get("typ") != "identity+jwt":
            raise jwt.InvalidTokenError("it is no token of identity")
        claims = jwt.decode(
            token,
            jwks.get_signing_key_from_jwt(token).key,
            algorithms=["EdDSA", "ES256", "RS256"],
            audience=audience,
            issuer=issuer,
            leeway=5,
            options={"require": ["exp", "iat", "sub", "jti"]},
        )
    except jwt.PyJWTError as error:
        raise ToolError(f"401: {error}") from error
    if role not in claims["roles"]:
        raise ToolError("403: Insufficient permissions")
    key = jwt.get_unverified_header(token)["kid"]
    return {**claims, "kid": key, "token": token}


@server.tool
def pay(context: Context, amount: int) -> dict:
    """Pays, for an admin."""
    return require(context, "admin")


@server.tool
def look(context: Context) -> dict:
    """Looks, for a user."""
    return require(context, "user")


@server.tool
def show(context: Context) -> dict:
    """What came, whoever calls."""
    return {"token": token_of(context)}


if port is None:
    server.run(transport="stdio", show_banner=False)
else:
    server.run(transport="http", host="127.0.0.1", port=port, show_banner=False)
