/** One watch of statuses that resumes without a gap; it runs in the shared worker, or in the page where there is none. */
import { toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

import { InstanceStatusSchema } from "../gen/optaic/status/v1/status_pb";
import { StatusService } from "../gen/optaic/status/v1/status_service_pb";

/** What a watch tells its listeners. */
export type Told =
  | { kind: "state"; live: boolean }
  /** What was shown may lack changes: read it again. */
  | { kind: "reset" }
  | { kind: "changed"; status: Uint8Array; deleted: boolean };

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5_000;
const LONGEST_QUIET_MS = 35_000; // the service says something every 10 seconds

/** Watch for ever; after an interruption go on from the last revision that was seen. */
export async function watchForEver(baseUrl: string, tell: (told: Told) => void): Promise<never> {
  const client = createClient(StatusService, createConnectTransport({ baseUrl, useBinaryFormat: true }));
  let revision: bigint | undefined;
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      // Without a revision the stream begins with all statuses. The pages read their lists themselves, so only what follows counts.
      const request = revision === undefined ? {} : { fromRevision: revision };
      const quiet = new AbortController();
      let alarm = setTimeout(() => quiet.abort(), LONGEST_QUIET_MS);
      try {
        for await (const each of client.watchInstanceStatuses(request, { signal: quiet.signal })) {
          clearTimeout(alarm);
          alarm = setTimeout(() => quiet.abort(), LONGEST_QUIET_MS);
          wait = FIRST_WAIT_MS;
          if (each.isInitial) continue;
          revision = each.revision;
          tell({ kind: "state", live: true });
          if (each.instanceStatus) {
            const status = toBinary(InstanceStatusSchema, each.instanceStatus);
            tell({ kind: "changed", status, deleted: each.isDeleted });
          }
        }
      } finally {
        clearTimeout(alarm);
      }
    } catch (error) {
      if (ConnectError.from(error).code === Code.OutOfRange) {
        revision = undefined;
        tell({ kind: "reset" });
      }
    }
    tell({ kind: "state", live: false });
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random())));
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}
