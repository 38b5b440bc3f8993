"""A FastAPI service without MCP: tools under /tools, health under /health.

    shop.py PORT NAME
"""
import sys

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

port, name = int(sys.argv[1]), sys.argv[2]
app = FastAPI()


class Wallet(BaseModel):
    owner: str
    coins: int = 0


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.post("/tools/create_wallet")
async def create_wallet(wallet: Wallet):
    return {"wallet": f"{wallet.owner}-1", "coins": wallet.coins, "by": name}


@app.post("/tools/who")
async def who(request: Request):
    headers = request.headers
    return {"by": name, "key": headers.get("authorization"), "call": headers.get("x-request-id")}


@app.post("/tools/say")
async def say():
    return "plain words"


@app.post("/tools/picture")
async def picture():
    return Response(b"\x89PNG", media_type="image/png")


@app.post("/tools/missing")
async def missing():
    raise HTTPException(404, "There is no such wallet")


@app.post("/tools/broken")
async def broken():
    raise RuntimeError("nobody outside should read this")


uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
