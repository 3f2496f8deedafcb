/** The connection to the gateway that serves this page. */
import { ConnectError } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

export const transport = createConnectTransport({ baseUrl: location.origin, useBinaryFormat: true });

/** What a person reads of an error: its message, and its reason where a service gave one. */
export function describeError(error: unknown): { message: string; reason: string } {
  const known = ConnectError.from(error);
  for (const detail of known.details) {
    if ("type" in detail && detail.type === "google.rpc.ErrorInfo") {
      const debug = detail.debug as { reason?: string } | undefined;
      return { message: known.rawMessage, reason: debug?.reason ?? "" };
    }
  }
  return { message: known.rawMessage, reason: "" };
}
