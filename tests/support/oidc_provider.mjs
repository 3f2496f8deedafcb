// A real OpenID Connect provider on this machine: `node oidc_provider.mjs PORT`, with the package oidc-provider beside it.
import { Provider } from "oidc-provider";

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const client = (client_id) => ({
  client_id, client_secret: `secret-of-${client_id}`, grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
});
// What the tokens of each client claim.
const claims = {
  researcher: { tenant: "default", roles: ["optaic-users"] },
  reader: { tenant: "default", roles: ["optaic-readers"] },
  rival: { tenant: "other", roles: ["optaic-users"] },
  homeless: { roles: ["optaic-users"] },
  roleless: { tenant: "default" },
  elsewhere: { tenant: "default", roles: ["optaic-users"] },
};
const resource = (audience) => ({
  scope: "optaic", audience, accessTokenTTL: 300, accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } },
});
const provider = new Provider(issuer, {
  clients: Object.keys(claims).map(client),
  clientBasedCORS: () => false,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "https://optaic.example.com",
      getResourceServerInfo: (_, __, { clientId }) => resource(clientId === "elsewhere" ? "another-program" : "optaic"),
    },
  },
  extraTokenClaims: (_, token) => ({ actor: token.clientId, ...claims[token.clientId] }),
});
provider.listen(port, "127.0.0.1", () => console.log("ready"));
