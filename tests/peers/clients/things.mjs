// What the JavaScript clients have in common: the things that the matrix test wants every client to do.
//
// The test writes one request per line to standard input, as JSON:
//   { "url": …, "key": … }                   an endpoint and the bearer key to show there, or
//   { "command": …, "args": […], "env": {} } a command that speaks stdio
//   "transport": "sse"                       HTTP+SSE of 2024-11-05 instead of Streamable HTTP
//   "era": "legacy" | "auto" | "modern"      where the client has the choice
//   "things": { "tool": {…}, … }             what to do, and what has to come of it (see below)
//   "patience": { "tool": 20000, … }         how many milliseconds each may take
// For each a client connects anew, does every thing, and prints one line per thing:
//   { "thing": "tool", "outcome": "works" | "cannot" | "fails", "why": … }
// and at last { "done": true, "protocol": …, "why": … }. When the input ends, so does it.
//
// A client is a "peer": an object with the methods that the things use. What its server tells unasked it
// puts into its `heard`; for what it has no way to do, its `cannot` says why.
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import readline from 'node:readline';

/** Loads from the packages that `./dev setup` installed. */
export function load(specifier) {
  return createRequire(path.join(process.env.VAXEL_TEST_TOOLS, 'npm', 'package.json'))(specifier);
}

/** What the clients declare, and how they answer what a server asks. */
export const capabilities = { sampling: {}, elicitation: {} };

export function fillIn(params) {
  const wanted = Object.keys(params.requestedSchema?.properties ?? {});
  return { action: 'accept', content: wanted.includes('name') ? { name: 'Ada' } : {} };
}

export function sample(params) {
  const [message] = params.messages;
  const [block] = [message.content].flat();
  return {
    role: 'assistant',
    model: 'test',
    stopReason: 'endTurn',
    content: { type: 'text', text: `you said: ${block.text}` },
  };
}

/** Headers that show the key of the request. */
export function headers(request) {
  return request.key ? { Authorization: `Bearer ${request.key}` } : {};
}

/** The environment of a stdio command: ours, and what the request adds. */
export function environment(request) {
  return { ...process.env, ...request.env };
}

/** The text of a result's blocks or messages. */
export function texts(blocks) {
  return blocks.map((block) => block.text ?? `[${block.type ?? 'blob'}]`).join('\n');
}

/** The notifications that came, for whoever waits for one. */
export class Heard {
  #all = [];
  #waiting = new Set();

  add(method, params) {
    this.#all.push({ method, params });
    for (const look of [...this.#waiting]) look();
  }

  /** Where to begin to look for what comes from now on. */
  get mark() {
    return this.#all.length;
  }

  /** The place behind the next one that fits, from `mark` on. */
  next(mark, fits) {
    return new Promise((resolve) => {
      const look = () => {
        const found = this.#all.findIndex((each, at) => at >= mark && fits(each));
        if (found < 0) return;
        this.#waiting.delete(look);
        resolve(found + 1);
      };
      this.#waiting.add(look);
      look();
    });
  }
}

const THINGS = {
  /** Every tool of `calls` is listed, and answers what is expected. */
  async tool(peer, { calls }) {
    const names = await peer.tools();
    for (const wanted of calls) {
      if (!names.includes(wanted.tool)) throw new Error(`${wanted.tool} is not listed`);
      await answers(peer, wanted);
    }
  },

  async resource(peer, { uri, expect }) {
    if (!(await peer.resources()).includes(uri)) throw new Error(`${uri} is not listed`);
    holds(await peer.read(uri), expect);
  },

  async prompt(peer, { name, arguments: args, expect }) {
    holds(await peer.prompt(name, args), expect);
  },

  async completion(peer, { ref, argument, expect }) {
    holds((await peer.complete(ref, argument)).join(' '), expect);
  },

  error: answers,
  form: answers,
  sampling: answers,

  async progress(peer, wanted) {
    let steps = 0;
    await answers(peer, wanted, { onprogress: () => (steps += 1) });
    if (steps === 0) throw new Error('no progress was told');
  },

  /** After a notification the list is another one. */
  async list(peer, { kind, ...wanted }) {
    const before = String(await peer[kind]());
    const stop = await peer.watch({ [kind]: true });
    let mark = peer.heard.mark;
    await answers(peer, wanted);
    do {
      mark = await peer.heard.next(mark, ({ method }) => method === `notifications/${kind}/list_changed`);
    } while (String(await peer[kind]()) === before);
    await stop();
  },

  async update(peer, { uri, ...wanted }) {
    const stop = await peer.watch({ uri });
    const mark = peer.heard.mark;
    await answers(peer, wanted);
    const fits = ({ method, params }) => method === 'notifications/resources/updated' && params.uri === uri;
    await peer.heard.next(mark, fits);
    await stop();
  },

  /** A call that runs, as its progress shows, ends unanswered, and where the server counts, it knows. */
  async cancel(peer, { tool, arguments: args, witness }) {
    const count = async () => witness && (await peer.call(witness, {})).text;
    const before = await count();
    const aborting = new AbortController();
    const { promise: running, resolve: onprogress } = Promise.withResolvers();
    const options = { onprogress, signal: aborting.signal };
    const ended = peer.call(tool, args ?? {}, options).then(
      ({ text }) => text,
      () => undefined,
    );
    if ((await Promise.race([running, ended.then(() => 'ended')])) === 'ended') {
      throw new Error(`the call ended by itself: ${await ended}`);
    }
    aborting.abort();
    const answer = await ended;
    if (answer !== undefined) throw new Error(`it was answered all the same: ${answer}`);
    while (witness && (await count()) === before) await new Promise((go) => setTimeout(go, 50));
  },

  async log(peer, { expect, ...wanted }) {
    await peer.level('debug');
    const mark = peer.heard.mark;
    await answers(peer, wanted, { level: 'debug' });
    const fits = ({ method, params }) =>
      method === 'notifications/message' && JSON.stringify(params.data).includes(expect);
    await peer.heard.next(mark, fits);
  },
};

/** Calls a tool, again and again when it is a switch that first has to be off, and looks at the answer. */
async function answers(peer, { tool, arguments: args, expect = '', fails = false, until }, options) {
  let answer = await peer.call(tool, args ?? {}, options);
  if (until && !answer.text.includes(until)) answer = await peer.call(tool, args ?? {}, options);
  if (answer.error !== fails) throw new Error(`${fails ? 'no error' : 'an error'}: ${answer.text}`);
  holds(answer.text, expect);
}

function holds(text, expected) {
  if (!text.includes(expected)) throw new Error(`expected ${expected}, got ${text}`);
}

/** Does what standard input asks for with the peers that `connect` makes; never returns. */
export async function serve(connect) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await exchange(JSON.parse(line), connect);
  }
  process.exit(0);
}

async function exchange(request, connect) {
  const end = { done: true };
  let peer;
  try {
    const heard = new Heard();
    peer = await within(20_000, connect(request, heard));
    peer.heard = heard;
    end.protocol = peer.protocol;
  } catch (error) {
    print({ ...end, why: `no connection: ${error?.message ?? error}` });
    return;
  }
  for (const [thing, wanted] of Object.entries(request.things)) {
    print({ thing, ...(await attempt(thing, peer, wanted, request.patience[thing])) });
  }
  // A peer that cannot say good-bye has still done its things.
  await within(5_000, peer.close()).catch(() => {});
  print(end);
}

async function attempt(thing, peer, wanted, patience) {
  if (peer.cannot?.[thing]) return { outcome: 'cannot', why: peer.cannot[thing] };
  try {
    await within(patience, THINGS[thing](peer, wanted));
    return { outcome: 'works' };
  } catch (error) {
    return { outcome: 'fails', why: String(error?.message ?? error) };
  }
}

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function print(object) {
  process.stdout.write(`${JSON.stringify(object)}\n`);
}
