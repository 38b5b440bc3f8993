// A client without an SDK, over HTTP+SSE of 2024-11-05 or over WebSocket, there in the era that the
// request names. What it is asked and what it prints is described in things.mjs.
import { capabilities, fillIn, headers, sample, serve, texts } from './things.mjs';

const MODERN = '2026-07-28';
const META = 'io.modelcontextprotocol';
const INFO = { name: 'raw', version: '1.0.0' };
const KINDS = { tools: 'toolsListChanged', resources: 'resourcesListChanged' };

class RawPeer {
  #last = 0;
  #calls = new Map();

  constructor(heard, { revision, send, end }) {
    Object.assign(this, { heard, protocol: revision, isModern: revision === MODERN, send, end });
  }

  /** What the server says: an answer, a question, or news. */
  receive(message) {
    const call = this.#calls.get(message.id ?? message.params?.progressToken);
    if (message.method === undefined) {
      this.#calls.delete(message.id);
      if (message.error) call?.reject(new Error(message.error.message));
      else call?.resolve(message.result);
    } else if (message.id !== undefined) {
      const result = this.#answer(message);
      this.send({ jsonrpc: '2.0', id: message.id, result });
    } else if (message.method === 'notifications/progress') {
      call?.onprogress?.();
    } else if (message.method === 'notifications/subscriptions/acknowledged') {
      this.#calls.get(message.params._meta[`${META}/subscriptionId`])?.onprogress();
    } else {
      this.heard.add(message.method, message.params);
    }
  }

  #answer({ method, params }) {
    if (method === 'elicitation/create') return fillIn(params);
    if (method === 'sampling/createMessage') return sample(params);
    return {};
  }

  /** Sends a request; with a signal it can be cancelled. */
  request(method, params = {}, { onprogress, signal, level } = {}) {
    const id = (this.#last += 1);
    const meta = {
      ...(this.isModern && {
        [`${META}/protocolVersion`]: MODERN,
        [`${META}/clientInfo`]: INFO,
        [`${META}/clientCapabilities`]: capabilities,
      }),
      ...(this.isModern && level && { [`${META}/logLevel`]: level }),
      ...(onprogress && { progressToken: id }),
    };
    const { promise, resolve, reject } = Promise.withResolvers();
    this.#calls.set(id, { resolve, reject, onprogress });
    signal?.addEventListener('abort', () => {
      this.notify('notifications/cancelled', { requestId: id });
      this.#calls.delete(id);
      reject(new Error('cancelled'));
    });
    this.send({ jsonrpc: '2.0', id, method, params: { ...params, _meta: meta } });
    return promise;
  }

  notify(method, params) {
    this.send({ jsonrpc: '2.0', method, ...(params && { params }) });
  }

  async initialize() {
    const wanted = { protocolVersion: this.protocol, clientInfo: INFO };
    const declared = this.protocol === '2024-11-05' ? { sampling: {} } : capabilities;
    const result = await this.request('initialize', { ...wanted, capabilities: declared });
    this.protocol = result.protocolVersion;
    this.notify('notifications/initialized');
  }

  async tools() {
    return (await this.#all('tools')).map((tool) => tool.name);
  }

  async resources() {
    return (await this.#all('resources')).map((resource) => resource.uri);
  }

  async #all(kind) {
    const found = [];
    let cursor;
    do {
      const page = await this.request(`${kind}/list`, cursor ? { cursor } : {});
      found.push(...page[kind]);
      cursor = page.nextCursor;
    } while (cursor);
    return found;
  }

  /** A request that a modern server may answer with questions first. */
  async #asked(method, params, options) {
    let result = await this.request(method, params, options);
    while (result.resultType === 'input_required') {
      const questions = Object.entries(result.inputRequests ?? {});
      const inputResponses = Object.fromEntries(
        questions.map(([key, question]) => [key, this.#answer(question)]),
      );
      const { requestState } = result;
      const again = { ...params, inputResponses, ...(requestState && { requestState }) };
      result = await this.request(method, again, options);
    }
    return result;
  }

  async call(name, args, options) {
    const result = await this.#asked('tools/call', { name, arguments: args }, options);
    return { text: texts(result.content ?? []), error: result.isError === true };
  }

  async read(uri) {
    return texts((await this.#asked('resources/read', { uri })).contents);
  }

  async prompt(name, args) {
    const { messages } = await this.#asked('prompts/get', { name, arguments: args });
    return texts(messages.map((message) => message.content));
  }

  async complete(ref, argument) {
    return (await this.request('completion/complete', { ref, argument })).completion.values;
  }

  async watch({ uri, ...lists }) {
    if (this.isModern) {
      const filter = Object.fromEntries(Object.keys(lists).map((kind) => [KINDS[kind], true]));
      if (uri) filter.resourceSubscriptions = [uri];
      const { promise: acknowledged, resolve: onprogress } = Promise.withResolvers();
      const stopping = new AbortController();
      const options = { onprogress, signal: stopping.signal };
      const ended = this.request('subscriptions/listen', { notifications: filter }, options);
      ended.catch(() => {});
      await Promise.race([acknowledged, ended]);
      return () => stopping.abort();
    }
    if (!uri) return () => {};
    await this.request('resources/subscribe', { uri });
    return () => this.request('resources/unsubscribe', { uri });
  }

  async level(level) {
    if (!this.isModern) await this.request('logging/setLevel', { level });
  }

  async close() {
    await this.end();
  }
}

/** A stream for what the server says, and an address for what the client says. */
async function overSse(request, heard) {
  const aborting = new AbortController();
  const accept = { Accept: 'text/event-stream', ...headers(request) };
  const stream = await fetch(request.url, { headers: accept, signal: aborting.signal });
  if (!stream.ok) throw new Error(`HTTP ${stream.status}`);
  const { promise: address, resolve: named } = Promise.withResolvers();
  const peer = new RawPeer(heard, {
    revision: '2024-11-05',
    async send(message) {
      const method = 'POST';
      const content = { 'Content-Type': 'application/json', ...headers(request) };
      await fetch(await address, { method, headers: content, body: JSON.stringify(message) });
    },
    end: () => aborting.abort(),
  });
  events(stream.body, ({ event, data }) => {
    if (event === 'endpoint') named(new URL(data, request.url));
    else peer.receive(JSON.parse(data));
  }).catch(() => {});
  await address;
  await peer.initialize();
  peer.cannot = { form: 'MCP 2024-11-05 has no elicitation' };
  return peer;
}

/** Reads `text/event-stream`. */
async function events(body, take) {
  let rest = '';
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + chunk.replaceAll('\r', '')).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) =>
        block
          .split('\n')
          .filter((line) => line.startsWith(`${name}:`))
          .map((line) => line.slice(name.length + 1).trimStart())
          .join('\n');
      const data = field('data');
      if (data) take({ event: field('event') || 'message', data });
    }
  }
}

/** One message per text frame. */
async function overWebSocket(request, heard) {
  const address = request.url.replace('http', 'ws');
  const socket = new WebSocket(address, { protocols: ['mcp'], headers: headers(request) });
  const peer = new RawPeer(heard, {
    revision: request.era === 'modern' ? MODERN : '2025-11-25',
    send: (message) => socket.send(JSON.stringify(message)),
    end: () => socket.close(),
  });
  socket.addEventListener('message', ({ data }) => peer.receive(JSON.parse(data)));
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve);
    socket.addEventListener('error', () => reject(new Error('no WebSocket')));
  });
  if (!peer.isModern) await peer.initialize();
  return peer;
}

await serve((request, heard) =>
  request.transport === 'sse' ? overSse(request, heard) : overWebSocket(request, heard),
);
