// The CLI of the MCP inspector, in the era that the request names: one run of it per request, all in
// this process, since starting it takes longer than what it does.
// What it is asked and what it prints is described in things.mjs.
import { mkdtempSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { headers, serve, texts } from './things.mjs';

const CLI = path.join(
  process.env.VAXEL_TEST_TOOLS,
  'npm/node_modules/@modelcontextprotocol/inspector/clients/cli/build/index.js',
);
// It keeps a catalog and credentials in its home.
const HOME = mkdtempSync(path.join(os.tmpdir(), 'inspector-'));
process.env.HOME = HOME;
const ANSWER = path.join(HOME, 'answer.json');
const { runCli } = await import(CLI);

class InspectorPeer {
  cannot = {
    completion: 'its CLI has no completion',
    form: 'its CLI answers no questions',
    sampling: 'its CLI answers no questions',
    progress: 'its CLI shows no progress',
    list: 'its CLI makes one request and ends',
    update: 'its CLI makes one request and ends',
    cancel: 'its CLI has no way to cancel',
    log: 'its CLI shows no log messages',
  };

  constructor(request) {
    this.request = request;
  }

  async tools() {
    return (await this.#run('tools/list')).tools.map((tool) => tool.name);
  }

  async resources() {
    return (await this.#run('resources/list')).resources.map((resource) => resource.uri);
  }

  async call(name, args) {
    const json = JSON.stringify(args);
    const result = await this.#run('tools/call', '--tool-name', name, '--tool-args-json', json);
    return { text: texts(result.content ?? []), error: result.isError === true };
  }

  async read(uri) {
    return texts((await this.#run('resources/read', '--uri', uri)).contents);
  }

  async prompt(name, args) {
    const pairs = Object.entries(args).map(([key, value]) => `${key}=${value}`);
    const { messages } = await this.#run('prompts/get', '--prompt-name', name, '--prompt-args', ...pairs);
    return texts(messages.map((message) => message.content));
  }

  async close() {}

  async #run(method, ...more) {
    const args = ['node', CLI, '--quiet', '--output', ANSWER, '--transport', 'http'];
    args.push('--server-url', this.request.url, '--protocol-era', this.request.era);
    for (const [name, value] of Object.entries(headers(this.request))) {
      args.push('--header', `${name}: ${value}`);
    }
    await rm(ANSWER, { force: true });
    // A tool that says that it failed is a failure to the CLI, and an answer all the same.
    const failed = await runCli([...args, '--method', method, ...more]).then(
      () => undefined,
      (error) => error,
    );
    const answer = await readFile(ANSWER, 'utf8').catch(() => undefined);
    if (answer === undefined) throw failed ?? new Error(`${method} left no answer`);
    return JSON.parse(answer);
  }
}

await serve(async (request) => new InspectorPeer(request));
