// The TypeScript SDK v2 as a client, in the era that the request (or PEER_ERA) names: `legacy`
// (sessions), `modern` (2026-07-28 and nothing else) or `auto` (asks first, falls back).
// The request and the output are described in exchange.mjs.
import process from 'node:process';
import {
  capabilities,
  environment,
  exchange,
  fillIn,
  headers,
  load,
  readRequest,
  sample,
} from './exchange.mjs';

const { Client, StreamableHTTPClientTransport } = load('@modelcontextprotocol/client');
const { StdioClientTransport } = load('@modelcontextprotocol/client/stdio');

const MODES = { legacy: 'legacy', auto: 'auto', modern: { pin: '2026-07-28' } };

const request = readRequest();
const era = request.era ?? process.env.PEER_ERA ?? 'auto';
const client = new Client(
  { name: `ts-v2-${era}`, version: '1.0.0' },
  { capabilities, versionNegotiation: { mode: MODES[era] } },
);
client.setRequestHandler('elicitation/create', ({ params }) => fillIn(params));
client.setRequestHandler('sampling/createMessage', ({ params }) => sample(params));

function transport() {
  if (request.command) {
    const { command, args } = request;
    return new StdioClientTransport({ command, args, env: environment(request), stderr: 'inherit' });
  }
  const requestInit = { headers: headers(request) };
  return new StreamableHTTPClientTransport(new URL(request.url), { requestInit });
}

await exchange(
  `ts-v2-${era}`,
  request,
  client,
  async () => {
    await client.connect(transport());
    return client.getNegotiatedProtocolVersion();
  },
  (params, options) => client.callTool(params, options),
);
