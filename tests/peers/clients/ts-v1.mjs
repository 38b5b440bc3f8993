// The TypeScript SDK v1 as a client: sessions, over Streamable HTTP, HTTP+SSE of 2024-11-05 or a
// command's stdio. What it is asked and what it prints is described in things.mjs.
import { SdkPeer } from './sdk.mjs';
import { capabilities, environment, fillIn, headers, load, sample, serve } from './things.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = load('@modelcontextprotocol/sdk/client/stdio.js');
const { SSEClientTransport } = load('@modelcontextprotocol/sdk/client/sse.js');
const { StreamableHTTPClientTransport } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');
const types = load('@modelcontextprotocol/sdk/types.js');

const TOLD = [
  types.ToolListChangedNotificationSchema,
  types.ResourceListChangedNotificationSchema,
  types.ResourceUpdatedNotificationSchema,
  types.LoggingMessageNotificationSchema,
];

function transport(request) {
  if (request.command) {
    const { command, args } = request;
    return new StdioClientTransport({ command, args, env: environment(request), stderr: 'inherit' });
  }
  const requestInit = { headers: headers(request) };
  if (request.transport === 'sse') {
    return new SSEClientTransport(new URL(request.url), { requestInit });
  }
  return new StreamableHTTPClientTransport(new URL(request.url), { requestInit });
}

await serve(async (request, heard) => {
  const client = new Client({ name: 'ts-v1', version: '1.0.0' }, { capabilities });
  client.setRequestHandler(types.ElicitRequestSchema, ({ params }) => fillIn(params));
  client.setRequestHandler(types.CreateMessageRequestSchema, ({ params }) => sample(params));
  for (const schema of TOLD) {
    client.setNotificationHandler(schema, ({ method, params }) => heard.add(method, params));
  }
  const way = transport(request);
  // The transport learns the negotiated revision; the client itself does not show it.
  let protocol;
  const inner = way.setProtocolVersion?.bind(way);
  way.setProtocolVersion = (version) => {
    protocol = version;
    inner?.(version);
  };
  await client.connect(way);
  const call = (params, options) => client.callTool(params, undefined, options);
  return new SdkPeer(client, { protocol, isModern: false, call });
});
