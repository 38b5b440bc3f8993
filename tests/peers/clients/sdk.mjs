// What the two TypeScript SDKs have in common as peers of things.mjs.
import { texts } from './things.mjs';

const LEVEL = 'io.modelcontextprotocol/logLevel';

/** A connected client of an SDK. `call` and `listen` are what differs between the two. */
export class SdkPeer {
  constructor(client, { protocol, isModern, call }) {
    Object.assign(this, { client, protocol, isModern, callTool: call });
  }

  async tools() {
    return (await this.#all('listTools', 'tools')).map((tool) => tool.name);
  }

  async resources() {
    return (await this.#all('listResources', 'resources')).map((resource) => resource.uri);
  }

  async call(name, args, { level, ...options } = {}) {
    const params = { name, arguments: args };
    if (level && this.isModern) params._meta = { [LEVEL]: level };
    const result = await this.callTool(params, options);
    return { text: texts(result.content ?? []), error: result.isError === true };
  }

  async read(uri) {
    return texts((await this.client.readResource({ uri })).contents);
  }

  async prompt(name, args) {
    const { messages } = await this.client.getPrompt({ name, arguments: args });
    return texts(messages.map((message) => message.content));
  }

  async complete(ref, argument) {
    return (await this.client.complete({ ref, argument })).completion.values;
  }

  /** Asks to hear of changes; a legacy client hears of lists without asking. */
  async watch({ tools, resources, uri }) {
    if (this.isModern) {
      const filter = {
        ...(tools && { toolsListChanged: true }),
        ...(resources && { resourcesListChanged: true }),
        ...(uri && { resourceSubscriptions: [uri] }),
      };
      const subscription = await this.client.listen(filter);
      return () => subscription.close();
    }
    if (!uri) return () => {};
    await this.client.subscribeResource({ uri });
    return () => this.client.unsubscribeResource({ uri });
  }

  async level(level) {
    if (!this.isModern) await this.client.setLoggingLevel(level);
  }

  async close() {
    await this.client.close();
  }

  async #all(list, key) {
    const found = [];
    let cursor;
    do {
      const page = await this.client[list](cursor ? { cursor } : undefined);
      found.push(...page[key]);
      cursor = page.nextCursor;
    } while (cursor);
    return found;
  }
}
