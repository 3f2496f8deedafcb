/** A refresh as it goes on. */
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { useMutation } from "@connectrpc/connect-query";
import { useState } from "react";
import { useParams } from "react-router";

import { useStream } from "../api/stream";
import { transport } from "../api/transport";
import { type Refresh, type RefreshFlow, RefreshMode, RefreshStatus } from "../gen/optaic/run/v1/refresh_pb";
import { RunService, WatchRefreshRequestSchema } from "../gen/optaic/run/v1/run_service_pb";
import { flowKey } from "../parts/flows";
import { useTitle } from "../parts/frame";
import { Loading, Problem } from "../parts/states";
import { Since } from "../parts/time";
import { word } from "../parts/words";
import { RefreshPlan } from "./refresh_plan";

interface Seen {
  refresh: Refresh;
  flows: Map<string, RefreshFlow>;
}

/** Follow a refresh until it has ended; an interrupted watch begins again with all flows. */
function useRefresh(refreshId: string): { seen: Seen | undefined; error: unknown } {
  const [seen, setSeen] = useState<Seen>();
  const error = useStream(refreshId, async (signal) => {
    const flows = new Map<string, RefreshFlow>();
    const request = create(WatchRefreshRequestSchema, { refreshId });
    for await (const each of createClient(RunService, transport).watchRefresh(request, { signal })) {
      for (const flow of each.flows) flows.set(flowKey(flow.flow), flow);
      if (each.refresh) setSeen({ refresh: each.refresh, flows: new Map(flows) });
    }
  });
  return { seen, error };
}

export function RefreshScreen() {
  const { id = "" } = useParams();
  useTitle("Refresh");
  const { seen, error } = useRefresh(id);
  const cancel = useMutation(RunService.method.cancelRefresh);
  const resume = useMutation(RunService.method.resumeRefresh);
  if (!seen) return error ? <Problem what="The refresh" error={error} /> : <Loading what="the refresh" />;
  const { refresh, flows } = seen;
  const counts = refresh.counts;
  const running = refresh.status === RefreshStatus.RUNNING;
  return (
    <>
      <h1>Refresh</h1>
      {Boolean(error) && <Problem what="The newest state of the refresh" error={error} />}
      <p role="status">
        <strong>{word(RefreshStatus, refresh.status)}</strong>, {word(RefreshMode, refresh.mode)}, by {refresh.actor} <Since time={refresh.submitTime} />
        {refresh.cancelReason && `; cancelled: ${refresh.cancelReason}`}
      </p>
      <p>
        {counts &&
          (["waiting", "running", "completed", "completedLate", "skipped", "failed", "blocked"] as const)
            .filter((each) => counts[each] > 0)
            .map((each) => `${counts[each]} ${each === "completedLate" ? "completed, still late" : each}`)
            .join(", ")}
      </p>
      <p className="buttons">
        {running && (
          <button type="button" disabled={cancel.isPending} onClick={() => cancel.mutate({ refreshId: id, requestId: crypto.randomUUID() })}>
            Cancel
          </button>
        )}
        {!running && refresh.status !== RefreshStatus.COMPLETED && (
          <button type="button" disabled={resume.isPending} onClick={() => resume.mutate({ refreshId: id, requestId: crypto.randomUUID() })}>
            Resume
          </button>
        )}
      </p>
      {cancel.error && <Problem what="The cancellation" error={cancel.error} />}
      {resume.error && <Problem what="The resumption" error={resume.error} />}
      <RefreshPlan flows={[...flows.values()]} />
    </>
  );
}
