// Another authorization server: oidc-provider, whose users are whoever they say they are. node issuer.mjs PORT, or
// node issuer.mjs PORT REDIRECT where somebody registered the client `vaxel` with the secret `s3cret/+` before.
// Anna is one of the staff, as its tokens say.
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';

const tools = path.join(process.env.VAXEL_TEST_TOOLS, 'npm', 'package.json');
const { default: Provider } = await import(pathToFileURL(createRequire(tools).resolve('oidc-provider')));

const [port, redirect] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const SCOPES = 'mcp:read mcp:execute';
const provider = new Provider(issuer, {
  clients: redirect
    ? [{
        client_id: 'vaxel', client_secret: 's3cret/+', redirect_uris: [redirect],
        grant_types: ['authorization_code', 'refresh_token'],
      }]
    : [],
  scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
  features: {
    devInteractions: { enabled: true },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_context, asked) => ({ scope: SCOPES, audience: asked, accessTokenFormat: 'jwt' }),
    },
  },
  clientDefaults: { application_type: 'native' },
  extraTokenClaims: (_context, token) => ({
    email: `${token.accountId}@example.com`,
    roles: [token.accountId === 'anna' ? 'staff' : 'admin'],
  }),
  findAccount: (_context, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
});
provider.on('server_error', (_context, error) => console.error(error));
provider.listen(Number(port), '127.0.0.1');
