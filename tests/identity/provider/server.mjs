// An OpenID Connect provider for the tests: people are told to it, and log in with any password.
//
//     node server.mjs PORT    (0 takes a free one; the first line of output is the issuer)
import { createServer } from "node:http";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { Provider } from "oidc-provider";

const people = new Map(); // subject -> claims
const mode = { tokenError: "" }; // what /token answers instead of its own answer
const redirect_uris = ["http://127.0.0.1/callback"];
const deviceFlow = process.env.NO_DEVICE_FLOW !== "yes";
const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";

function client(client_id, more) {
  return {
    client_id,
    client_secret: `${client_id}-secret`,
    application_type: "native", // loopback redirects with any port
    redirect_uris,
    response_types: ["code"],
    grant_types: ["authorization_code", "refresh_token", ...(deviceFlow ? [DEVICE] : [])],
    token_endpoint_auth_method: "client_secret_basic",
    ...more,
  };
}

function signingKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "RS256" };
}

const configuration = {
  clients: [
    client("hearth"),
    client("posting", { token_endpoint_auth_method: "client_secret_post" }),
    client("public", { client_secret: undefined, token_endpoint_auth_method: "none" }),
    client("forgetful", { grant_types: ["authorization_code"] }), // gets no refresh tokens
  ],
  jwks: { keys: [signingKey()] },
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  // As some providers do: unless this is false, the e-mail address is told by the userinfo endpoint only.
  conformIdTokenClaims: process.env.CLAIMS_IN_ID_TOKEN !== "yes",
  features: {
    deviceFlow: { enabled: deviceFlow },
    devInteractions: { enabled: true },
  },
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed("refresh_token"),
  findAccount: async (ctx, sub) =>
    people.has(sub) ? { accountId: sub, claims: async () => ({ sub, ...people.get(sub) }) } : undefined,
  cookies: { keys: [randomUUID()] },
};

async function control(ctx, next) {
  if (ctx.path === "/test") {
    let body = "";
    for await (const chunk of ctx.req) body += chunk;
    const told = JSON.parse(body);
    for (const [sub, claims] of Object.entries(told.people ?? {})) {
      claims === null ? people.delete(sub) : people.set(sub, claims);
    }
    Object.assign(mode, told.mode ?? {});
    ctx.body = {};
    return;
  }
  if (ctx.path === "/token" && mode.tokenError) {
    ctx.status = 400;
    ctx.body = { error: mode.tokenError, error_description: "a text that nobody is to see" };
    return;
  }
  await next();
  if (ctx.path === "/device/auth" && ctx.body?.device_code) ctx.body = { ...ctx.body, interval: 1 };
}

const server = createServer((request, response) => handle(request, response));
let handle;
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  provider.use(control);
  handle = provider.callback();
  console.log(issuer);
});
process.on("SIGTERM", () => process.exit(0));
process.stdin.resume().on("end", () => process.exit(0)); // whoever started this is gone
