/** Why a flow is not fresh: each cause, and the way from it to here. */
import { useQuery } from "@connectrpc/connect-query";
import { Link } from "react-router";

import type { FlowRef } from "../gen/optaic/common/v1/flow_pb";
import { LineageService } from "../gen/optaic/lineage/v1/lineage_service_pb";
import { Found } from "../parts/states";
import { causeWord } from "../parts/words";

export function Why({ flow }: { flow: FlowRef }) {
  const query = useQuery(LineageService.method.explainStaleness, { flow });
  return (
    <Found what="Why it is so" query={query}>
      {({ explanations, flowState }) => (
        <>
          {flowState?.failure && (
            <p className="problem">
              {flowState.failure.type}: {flowState.failure.message}
            </p>
          )}
          {explanations.length > 0 && (
            <ol className="why">
              {explanations.map((each, number) => (
                // Explanations have no name of their own, and a new answer replaces all of them.
                <li key={number}>
                  <strong>{each.cause ? causeWord(each.cause.kind) : "unknown"}</strong>
                  {each.cause?.message && <>: {each.cause.message}</>}
                  {each.path.length > 1 && (
                    <span className="path">
                      {each.path.map((step, place) => (
                        <span key={`${step.flow?.instanceId}/${place}`}>
                          {place > 0 && " → "}
                          {step.hidden ? "hidden" : <Link to={`/instances/${step.flow?.instanceId}`}>{step.instanceName}</Link>}
                        </span>
                      ))}
                    </span>
                  )}
                </li>
              ))}
            </ol>
          )}
        </>
      )}
    </Found>
  );
}
