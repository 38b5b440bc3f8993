// A token for `user`, by the steps that a browser and a client would take: node short.mjs SERVER RESOURCE SCOPE USER PASSWORD
import { createHash, randomBytes } from 'node:crypto';
import process from 'node:process';

const [server, resource, scope, username, password] = process.argv.slice(2);
const redirect = 'http://127.0.0.1:1/callback';
const form = (values, cookie) => ({
  method: 'POST',
  redirect: 'manual',
  headers: { origin: server, ...(cookie && { cookie }) },
  body: new URLSearchParams(values),
});
const said = async (response) => {
  if (response.status >= 400) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
  return response;
};
const word = (page) => /name="word" value="([^"]*)"/.exec(page)[1];
const cookieOf = (response) => response.headers.get('set-cookie').split(';')[0];

const registration = { redirect_uris: [redirect], token_endpoint_auth_method: 'none' };
const registered = await said(await fetch(`${server}/oauth/register`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(registration),
}));
const { client_id } = await registered.json();
const verifier = randomBytes(32).toString('base64url');
const query = new URLSearchParams({
  response_type: 'code', client_id, redirect_uri: redirect, scope, resource, state: 's',
  code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
}).toString();
const page = await said(await fetch(`${server}/oauth/authorize?${query}`));
const to = { query, to: '/oauth/authorize', word: word(await page.text()) };
const signedIn = await said(await fetch(`${server}/oauth/sign-in`, form({ username, password, ...to }, cookieOf(page))));
const cookie = cookieOf(signedIn);
const consent = await said(await fetch(`${server}/oauth/authorize?${query}`, { headers: { cookie } }));
const answer = { query, answer: 'allow', word: word(await consent.text()) };
const allowed = await said(await fetch(`${server}/oauth/consent`, form(answer, cookie)));
const code = new URL(allowed.headers.get('location')).searchParams.get('code');
const asked = { grant_type: 'authorization_code', client_id, code, redirect_uri: redirect, code_verifier: verifier, resource };
const tokens = await said(await fetch(`${server}/oauth/token`, form(asked)));
console.log((await tokens.json()).access_token);
