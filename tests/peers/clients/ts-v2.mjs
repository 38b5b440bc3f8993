// The TypeScript SDK v2 as a client, in the era that the request names: `legacy` (sessions), `modern`
// (2026-07-28 and nothing else) or `auto` (asks first, falls back).
// What it is asked and what it prints is described in things.mjs.
import { SdkPeer } from './sdk.mjs';
import { capabilities, environment, fillIn, headers, load, sample, serve } from './things.mjs';

const { Client, StreamableHTTPClientTransport } = load('@modelcontextprotocol/client');
const { StdioClientTransport } = load('@modelcontextprotocol/client/stdio');

const MODERN = '2026-07-28';
const MODES = { legacy: 'legacy', auto: 'auto', modern: { pin: MODERN } };
const TOLD = [
  'notifications/tools/list_changed',
  'notifications/resources/list_changed',
  'notifications/resources/updated',
  'notifications/message',
];

function transport(request) {
  if (request.command) {
    const { command, args } = request;
    return new StdioClientTransport({ command, args, env: environment(request), stderr: 'inherit' });
  }
  const requestInit = { headers: headers(request) };
  return new StreamableHTTPClientTransport(new URL(request.url), { requestInit });
}

await serve(async (request, heard) => {
  const info = { name: `ts-v2-${request.era}`, version: '1.0.0' };
  const client = new Client(info, { capabilities, versionNegotiation: { mode: MODES[request.era] } });
  client.setRequestHandler('elicitation/create', ({ params }) => fillIn(params));
  client.setRequestHandler('sampling/createMessage', ({ params }) => sample(params));
  for (const method of TOLD) {
    client.setNotificationHandler(method, ({ params }) => heard.add(method, params));
  }
  await client.connect(transport(request));
  const protocol = client.getNegotiatedProtocolVersion();
  const call = (params, options) => client.callTool(params, options);
  return new SdkPeer(client, { protocol, isModern: protocol === MODERN, call });
});
