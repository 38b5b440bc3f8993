// The TypeScript SDK v1 as a client: sessions, over Streamable HTTP, HTTP+SSE of 2024-11-05 or a command's
// stdio.
// The request and the output are described in exchange.mjs.
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

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = load('@modelcontextprotocol/sdk/client/stdio.js');
const { SSEClientTransport } = load('@modelcontextprotocol/sdk/client/sse.js');
const { StreamableHTTPClientTransport } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');

const { CreateMessageRequestSchema, ElicitRequestSchema } = load('@modelcontextprotocol/sdk/types.js');

const request = readRequest();
const client = new Client({ name: 'ts-v1', version: '1.0.0' }, { capabilities });
client.setRequestHandler(ElicitRequestSchema, ({ params }) => fillIn(params));
client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => sample(params));

// The transport learns the negotiated revision; the client itself does not show it.
let protocol;
function remember(transport) {
  const inner = transport.setProtocolVersion?.bind(transport);
  transport.setProtocolVersion = (version) => {
    protocol = version;
    inner?.(version);
  };
  return transport;
}

function transport() {
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

await exchange(
  'ts-v1',
  request,
  client,
  async () => {
    await client.connect(remember(transport()));
    return protocol;
  },
  (params, options) => client.callTool(params, undefined, options),
);
