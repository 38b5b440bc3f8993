// The OAuth clients of the TypeScript SDKs (`sdk`: "v1" or "v2"). { "url": …, "sdk": …, "tool": …, "arguments": {…} } is
// read from standard input; printed are { "visit": address } and, when somebody let it in, { "text": what the tool said }.
import http from 'node:http';
import process from 'node:process';
import { text } from 'node:stream/consumers';

import { load, texts } from '../clients/things.mjs';

const asked = JSON.parse(await text(process.stdin));
const sdk = (part) => (asked.sdk === 'v1' ? load(`@modelcontextprotocol/sdk/${part}`) : load('@modelcontextprotocol/client'));
const { Client } = sdk('client/index.js');
const { StreamableHTTPClientTransport } = sdk('client/streamableHttp.js');
const { UnauthorizedError } = sdk('client/auth.js');

/** Waits for the answer that the browser brings. */
const callback = http.createServer();
await new Promise((listening) => callback.listen(0, '127.0.0.1', listening));
const redirect = `http://127.0.0.1:${callback.address().port}/callback`;
const answer = new Promise((came) => {
  callback.on('request', (request, response) => {
    response.end('<title>client</title>Back in the client');
    const url = new URL(request.url, redirect);
    if (url.pathname === '/callback') came(url.searchParams);
  });
});

class Provider {
  kept = {};
  redirectUrl = redirect;
  clientMetadata = {
    client_name: `TypeScript SDK ${asked.sdk}`,
    redirect_uris: [redirect],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: asked.method ?? 'none',
  };
  state = () => 'a state';
  clientInformation = () => this.kept.client;
  saveClientInformation = (client) => void (this.kept.client = client);
  tokens = () => this.kept.tokens;
  saveTokens = (tokens) => void (this.kept.tokens = tokens);
  redirectToAuthorization = (url) => console.log(JSON.stringify({ visit: url.href }));
  saveCodeVerifier = (verifier) => void (this.kept.verifier = verifier);
  codeVerifier = () => this.kept.verifier;
  saveDiscoveryState = (state) => void (this.kept.discovery = state);
  discoveryState = () => this.kept.discovery;
}

const provider = new Provider();
const connect = async () => {
  const client = new Client({ name: 'ts', version: '1' }, { versionNegotiation: { mode: asked.era ?? 'auto' } });
  const transport = new StreamableHTTPClientTransport(new URL(asked.url), { authProvider: provider });
  try {
    await client.connect(transport);
    return client;
  } catch (error) {
    if (!(error instanceof UnauthorizedError) && error?.name !== 'UnauthorizedError') throw error;
    const params = await answer;
    if (params.get('error')) throw new Error(params.get('error'));
    if (params.get('state') !== 'a state') throw new Error('another state');
    await transport.finishAuth(asked.sdk === 'v1' ? params.get('code') : params);
    return connect();
  }
};

try {
  const client = await connect();
  const call = async () => {
    const result = await client.callTool({ name: asked.tool, arguments: asked.arguments });
    return texts(result.content);
  };
  const said = await call();
  // An access token that is over: the next call has to get new ones by itself.
  if (asked.renews === false) {
    console.log(JSON.stringify({ text: said }));
    process.exit(0);
  }
  const { access_token: before, ...rest } = provider.kept.tokens;
  provider.kept.tokens = { ...rest, access_token: `${before.slice(0, -4)}AAAA` };
  const again = await call();
  const renewed = provider.kept.tokens.access_token !== before && again === said;
  console.log(JSON.stringify({ text: said, renewed, scope: rest.scope }));
  await client.close();
} catch (error) {
  console.log(JSON.stringify({ error: String(error?.stack ?? error) }));
}
callback.close();
process.exit(0);
