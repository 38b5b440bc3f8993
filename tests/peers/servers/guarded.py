"""A server of MCP that wants tokens, and the authorization server that gives them, on one port:
guarded.py PORT. With guarded.py PORT ISSUER the tokens are those of another one, signed with RS256.

Knows the client `robot` with the secret `s3cret/+`, registers others, lets every user in at once as the name in
the query `as` of its page (or `someone`), and checks what clients may get wrong: PKCE, `resource`, redirect
addresses, codes and refresh tokens that come twice. `/seen` says what it was asked; `/end` makes every token
that it gave invalid, `/end?all` the refresh tokens, too; `/clients/end` forgets who registered; `/secret?is=X` is
robot's from then on; `/moved` has tokens given at another address; `/silent` has it say nothing of itself, as servers
of MCP 2025-03-26; `/deaf` has it refuse every token; `/slow` keeps whoever asks for a token waiting until `/quick`.
"""

import base64
import hashlib
import json
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit
from urllib.request import urlopen

PORT = int(sys.argv[1])
BASE = f"http://127.0.0.1:{PORT}"
ISSUER = sys.argv[2] if len(sys.argv) > 2 else None
OVER = set()
CLIENTS = {"robot": {"secret": "s3cret/+", "redirects": []}}
CODES, ACCESS, REFRESH, SEEN = {}, {}, {}, []
ISSUED = {"expires_in": 3600}
MOOD = {"token": "/token", "silent": False, "deaf": False}
QUICK = threading.Event()
QUICK.set()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text):
    return int.from_bytes(decoded(text), "big")


def who_says(token):
    """Whom a token of the other authorization server stands for (RFC 9068, RFC 8017 §8.2.2)."""
    parts = token.split(".")
    if len(parts) != 3 or token in OVER:
        return None
    head, claims = (json.loads(decoded(part)) for part in parts[:2])
    with urlopen(f"{ISSUER}/.well-known/openid-configuration") as found:
        with urlopen(json.load(found)["jwks_uri"]) as keys:
            key = next(key for key in json.load(keys)["keys"] if key["kid"] == head["kid"])
    modulus = number(key["n"])
    size = (modulus.bit_length() + 7) // 8
    shown = pow(number(parts[2]), number(key["e"]), modulus).to_bytes(size, "big")
    digest = hashlib.sha256(".".join(parts[:2]).encode()).digest()
    proof = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    wanted = b"\0\1" + b"\xff" * (size - len(proof) - 3) + b"\0" + proof
    is_good = head["alg"] == "RS256" and shown == wanted and claims["exp"] > time.time()
    return claims["sub"] if is_good and (claims["iss"], claims["aud"]) == (ISSUER, f"{BASE}/mcp") else None


class Guarded(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=None, **headers):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        url = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        if url.path == "/seen":
            return self.answer(200, SEEN)
        if url.path == "/short":
            ISSUED["expires_in"] = int(asked["for"])
            return self.answer(200, {})
        if url.path == "/end":
            ACCESS.clear()
            OVER.update(one["shown"].removeprefix("Bearer ") for one in SEEN if one["at"] == "mcp")
            if "all" in asked:
                REFRESH.clear()
            return self.answer(200, {})
        if url.path == "/clients/end":
            for name in [name for name in CLIENTS if name != "robot"]:
                del CLIENTS[name]
            return self.answer(200, {})
        if url.path == "/secret":
            CLIENTS["robot"]["secret"] = asked["is"]
            return self.answer(200, {})
        if url.path == "/moved":
            MOOD["token"] = "/tokens/here"
            return self.answer(200, {})
        if url.path in ("/silent", "/deaf"):
            MOOD[url.path[1:]] = True
            return self.answer(200, {})
        if url.path in ("/slow", "/quick"):
            QUICK.clear() if url.path == "/slow" else QUICK.set()
            return self.answer(200, {})
        if url.path.startswith("/.well-known/") and MOOD["silent"]:
            return self.answer(404)
        if url.path == "/.well-known/oauth-protected-resource/mcp":
            SEEN.append({"at": "resource"})
            return self.answer(200, {"resource": f"{BASE}/mcp", "authorization_servers": [ISSUER or f"{BASE}/as"],
                                     "scopes_supported": ["mcp:execute" if ISSUER else "all"]})
        if url.path == "/.well-known/oauth-authorization-server/as":
            SEEN.append({"at": "metadata"})
            return self.answer(200, {
                "issuer": f"{BASE}/as", "authorization_endpoint": f"{BASE}/authorize",
                "token_endpoint": f"{BASE}{MOOD['token']}", "registration_endpoint": f"{BASE}/register",
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"]})
        if url.path == "/authorize":
            return self.authorize(asked)
        self.answer(404)

    def authorize(self, asked):
        client = CLIENTS.get(asked.get("client_id"))
        if client is None or asked.get("redirect_uri") not in client["redirects"]:
            return self.answer(400, {"error": "invalid_request"})
        if asked.get("resource") != f"{BASE}/mcp" or asked.get("code_challenge_method") != "S256":
            return self.answer(400, {"error": "invalid_target"})
        SEEN.append({"at": "authorize", "scope": asked.get("scope")})
        code = secrets.token_urlsafe()
        CODES[code] = dict(asked, user=asked.get("as", "someone"))
        back = urlencode({"code": code, "state": asked["state"], "iss": f"{BASE}/as"})
        self.answer(302, location=f"{asked['redirect_uri']}?{back}")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = urlsplit(self.path).path
        if path == "/register":
            asked = json.loads(body)
            name = secrets.token_urlsafe(8)
            CLIENTS[name] = {"secret": None, "redirects": asked["redirect_uris"]}
            SEEN.append({"at": "register"})
            return self.answer(201, dict(asked, client_id=name))
        if path == MOOD["token"]:
            SEEN.append({"at": "waiting"})
            QUICK.wait(60)
            return self.token({key: values[0] for key, values in parse_qs(body.decode()).items()})
        if path == "/token":
            SEEN.append({"at": "refused"})
        if path == "/mcp":
            return self.mcp(json.loads(body))
        self.answer(404)

    def token(self, asked):
        name, secret = asked.get("client_id"), asked.get("client_secret")
        if self.headers.get("authorization", "").startswith("Basic "):
            both = base64.b64decode(self.headers["authorization"][6:]).decode()
            name, secret = map(unquote_plus, both.split(":", 1))
        client = CLIENTS.get(name)
        if client is None or client["secret"] != secret:
            SEEN.append({"at": "refused", "client": name})
            return self.answer(401, {"error": "invalid_client"})
        if asked.get("resource") != f"{BASE}/mcp":
            return self.answer(400, {"error": "invalid_target"})
        grant = asked.get("grant_type")
        SEEN.append({"at": "token", "grant": grant, "scope": asked.get("scope")})
        if grant == "client_credentials" and secret:
            return self.give(name, None)
        if grant == "authorization_code":
            code = CODES.pop(asked.get("code"), None)
            digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
            proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if code and code["code_challenge"] == proof and code["redirect_uri"] == asked.get("redirect_uri"):
                return self.give(code["user"], name)
        if grant == "refresh_token":
            user = REFRESH.pop(asked.get("refresh_token"), None)
            if user:
                return self.give(user, name)
        self.answer(400, {"error": "invalid_grant"})

    def give(self, user, client):
        token = secrets.token_urlsafe()
        ACCESS[token] = user
        given = {"access_token": token, "token_type": "Bearer", **ISSUED}
        if client:
            given["refresh_token"] = secrets.token_urlsafe()
            REFRESH[given["refresh_token"]] = user
        self.answer(200, given)

    def mcp(self, message):
        shown = self.headers.get("authorization", "")
        token = shown.removeprefix("Bearer ")
        user = who_says(token) if ISSUER else ACCESS.get(token)
        SEEN.append({"at": "mcp", "method": message.get("method"), "user": user, "shown": shown})
        if user is None or MOOD["deaf"]:
            metadata = f"{BASE}/.well-known/oauth-protected-resource/mcp"
            scope = "mcp:execute" if ISSUER else "tools"
            challenge = "Bearer" if MOOD["silent"] else f'Bearer scope="{scope}", resource_metadata="{metadata}"'
            return self.answer(401, {}, www_authenticate=challenge)
        method = message.get("method")
        if "id" not in message:
            return self.answer(202)
        result = {}
        if method == "initialize":
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                      "serverInfo": {"name": "guarded", "version": "1"}}
        elif method == "tools/list":
            result = {"tools": [{"name": "who", "inputSchema": {"type": "object"}}]}
        elif method == "tools/call":
            result = {"content": [{"type": "text", "text": f"you are {user}"}]}
        elif method != "ping":
            error = {"code": -32601, "message": "unknown"}
            return self.answer(200, {"jsonrpc": "2.0", "id": message["id"], "error": error})
        self.answer(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})


# Many come at once.
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", PORT), Guarded).serve_forever()
