/** The question before a refresh: what it would run, and why; then it is submitted and followed. */
import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { RefreshFlowStatus, RefreshMode, type RefreshSelectionSchema } from "../gen/optaic/run/v1/refresh_pb";
import { RunService } from "../gen/optaic/run/v1/run_service_pb";
import { Ask } from "../parts/ask";
import { Found, Problem } from "../parts/states";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { RefreshPlan } from "./refresh_plan";

export function RefreshQuestion({ selection, onEnd }: { selection: MessageInitShape<typeof RefreshSelectionSchema>; onEnd: () => void }) {
  const [mode, setMode] = useState(RefreshMode.SMART);
  const [requestId] = useState(() => crypto.randomUUID());
  const plan = useQuery(RunService.method.planRefresh, { selection, mode });
  const go = useNavigate();
  const submit = useMutation(RunService.method.submitRefresh, { onSuccess: (refresh) => go(`/refreshes/${refresh.refreshId}`) });
  return (
    <Ask
      title="Refresh"
      yes={submit.isPending ? "Submitting …" : "Refresh"}
      busy={submit.isPending || plan.data === undefined}
      onYes={() => submit.mutate({ selection, mode, requestId })}
      onNo={onEnd}
    >
      <label>
        <input
          type="checkbox"
          checked={mode === RefreshMode.FORCE}
          onChange={(event) => setMode(event.target.checked ? RefreshMode.FORCE : RefreshMode.SMART)}
        />{" "}
        also what is ready
      </label>
      <Found what="The plan" query={plan}>
        {({ flows }) => {
          const runs = flows.filter((each) => each.status === RefreshFlowStatus.WAITING).length;
          return (
            <>
              <p>
                {runs.toLocaleString()} of {flows.length.toLocaleString()} flows would run.
              </p>
              <RefreshPlan flows={flows} />
            </>
          );
        }}
      </Found>
      {submit.error && <Problem what="The refresh" error={submit.error} />}
    </Ask>
  );
}
