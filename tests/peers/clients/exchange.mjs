// What the TypeScript clients have in common: read the request, make every call, print what came
// of it. The SDKs differ in how a client is made and connected, so each brings that itself.
//
// The request is JSON, as the first argument or in PEER_REQUEST:
//   { "url": …, "key": … }                   an endpoint and the bearer key to show there, or
//   { "command": …, "args": […], "env": {} } a command that speaks stdio
//   "transport": "sse"                       HTTP+SSE of 2024-11-05 instead of Streamable HTTP
//   "era": "legacy" | "auto" | "modern"      where the client has the choice (default: auto)
//   "expect_tools": ["a", …]                 names that the list must hold
//   "calls":   [{ "tool", "arguments", "expect_contains", "expect_error", "progress" }]
//   "reads":   [{ "uri", "expect_contains" }]
// What a server asks in the middle of a call is answered: a form with the name Ada, sampling with
// what it was asked.
//   "prompts": [{ "name", "arguments", "expect_contains" }]
// Printed is one JSON object per line: first the connection, then one per call. The exit code is 0
// when everything was as expected.
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

const DEADLINE_MS = Number(process.env.PEER_DEADLINE_MS ?? 60_000);

/** Loads from the packages that `./dev setup` installed. */
export function load(specifier) {
  const tools = process.env.VAXEL_TEST_TOOLS;
  if (!tools) fail('VAXEL_TEST_TOOLS must name the folder that ./dev setup filled');
  return createRequire(path.join(tools, 'npm', 'package.json'))(specifier);
}

export function readRequest() {
  const text = process.argv[2] ?? process.env.PEER_REQUEST;
  if (!text) fail('give the request as JSON: first argument or PEER_REQUEST');
  return JSON.parse(text);
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

/** Runs `connect`, then every call of the request through `client`; never returns. */
export async function exchange(name, request, client, connect, call) {
  const watchdog = setTimeout(() => fail(`${name}: not done after ${DEADLINE_MS} ms`), DEADLINE_MS);
  let ok = true;
  try {
    const protocol = await connect();
    const tools = await all(client, 'listTools', 'tools');
    const names = tools.map((tool) => tool.name);
    const missing = (request.expect_tools ?? []).filter((tool) => !names.includes(tool));
    ok &&= missing.length === 0;
    print({ client: name, protocol, server: client.getServerVersion?.(), tools: names, missing });
    for (const wanted of request.calls ?? []) {
      ok &= report({ tool: wanted.tool }, wanted, await attempt(() => called(call, wanted)));
    }
    for (const wanted of request.reads ?? []) {
      const answer = () => client.readResource({ uri: wanted.uri }).then(contents);
      ok &= report({ uri: wanted.uri }, wanted, await attempt(answer));
    }
    for (const wanted of request.prompts ?? []) {
      const { name: prompt, arguments: args } = wanted;
      const answer = () => client.getPrompt({ name: prompt, arguments: args }).then(messages);
      ok &= report({ prompt }, wanted, await attempt(answer));
    }
    await client.close();
  } catch (error) {
    fail(`${name}: ${error?.stack ?? error}`);
  }
  clearTimeout(watchdog);
  process.exit(ok ? 0 : 1);
}

async function all(client, list, key) {
  const found = [];
  let cursor;
  do {
    const page = await client[list](cursor ? { cursor } : undefined);
    found.push(...page[key]);
    cursor = page.nextCursor;
  } while (cursor);
  return found;
}

async function called(call, wanted) {
  let progress = 0;
  const options = wanted.progress ? { onprogress: () => (progress += 1) } : {};
  const result = await call({ name: wanted.tool, arguments: wanted.arguments ?? {} }, options);
  const text = (result.content ?? []).map((block) => block.text ?? `[${block.type}]`).join('\n');
  const extra = wanted.progress ? { progress } : {};
  return { text, error: result.isError === true, structured: result.structuredContent, ...extra };
}

function contents(result) {
  return { text: result.contents.map((content) => content.text ?? '[blob]').join('\n') };
}

function messages(result) {
  return { text: result.messages.map((message) => message.content.text ?? '').join('\n') };
}

async function attempt(answer) {
  try {
    return await answer();
  } catch (error) {
    return { text: String(error?.message ?? error), error: true, code: error?.code };
  }
}

/** A call is right when it failed or not as expected, and its text holds what was expected. */
function report(what, wanted, answer) {
  const ok =
    (answer.error === true) === (wanted.expect_error === true) &&
    answer.text.includes(wanted.expect_contains ?? '') &&
    (!wanted.progress || answer.progress > 0);
  print({ ...what, ok, ...answer });
  return ok;
}

function print(object) {
  process.stdout.write(`${JSON.stringify(object)}\n`);
}

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}
