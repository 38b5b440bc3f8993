// A person at a browser: goes to an address, signs in, and says whether a client may.
//   { "url": …, "name": …, "password": …, "newPassword": …, "answer": "allow" | "deny", "pictures": folder,
//     "elsewhere": true at the pages of issuer.mjs, "there": who signs in at those after the pages of Vaxel }
// is read from standard input; printed is what was seen: { "titles": […], "text": …, "end": address }
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { text } from 'node:stream/consumers';

import { load } from '../clients/things.mjs';

const { chromium } = load('playwright-core');

const ARGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

const asked = JSON.parse(await text(process.stdin));
const profile = mkdtempSync(path.join(tmpdir(), 'person-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ARGS,
  headless: true,
  viewport: { width: 900, height: 900 },
});
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(60_000);
const seen = { titles: [], text: '', refused: [] };
page.on('console', (message) => {
  if (message.type() === 'error') seen.refused.push(message.text());
});

async function look(name) {
  seen.titles.push(await page.title());
  seen.text = await page.locator('body').innerText();
  if (asked.pictures) await page.screenshot({ path: path.join(asked.pictures, `${name}.png`), fullPage: true });
}

async function signInElsewhere(name, end) {
  await page.locator('input[name=login]').fill(name);
  await page.locator('input[name=password]').fill('x');
  await page.getByRole('button', { name: 'Sign-in' }).click();
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.waitForURL((url) => url.pathname === end);
}

try {
  await page.goto(asked.url);
  await look('1-sign-in');
  if (asked.elsewhere) {
    await signInElsewhere(asked.name, '/callback');
  } else if (asked.name) {
    await page.getByLabel('Name').fill(asked.name);
    await page.getByLabel('Password', { exact: true }).fill(asked.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    if (asked.newPassword) {
      await page.getByLabel('New password').waitFor();
      await look('2-new-password');
      await page.getByLabel('Password', { exact: true }).fill(asked.password);
      await page.getByLabel('New password').fill(asked.newPassword);
      await page.getByRole('button', { name: 'Sign in' }).click();
    }
  }
  if (asked.there) await signInElsewhere(asked.there, '/oauth/callback');
  const answer = asked.answer && !asked.elsewhere && page.getByRole('button', { name: asked.answer === 'deny' ? 'No' : 'Allow' });
  if (answer) {
    await answer.waitFor();
    await look('3-consent');
    const before = page.url();
    await answer.click();
    const settled = (url) => url.href !== before && !url.pathname.endsWith('/oauth/consent');
    await page.waitForURL(settled);
    await page.waitForLoadState();
  } else {
    await page.waitForLoadState();
  }
  await look('4-end');
  seen.end = page.url();
} catch (error) {
  console.error(page.url(), await page.locator('body').innerText().catch(() => ''));
  throw error;
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(seen));
