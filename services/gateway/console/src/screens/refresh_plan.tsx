/** The flows of a refresh, or of its plan, from the first that runs to the last. */
import { Link } from "react-router";

import { type RefreshFlow, RefreshFlowStatus, RefreshSkipReason } from "../gen/optaic/run/v1/refresh_pb";
import { flowKey } from "../parts/flows";
import { Table } from "../parts/table";
import { flowWord, word } from "../parts/words";

const SHAPES: Record<number, string> = {
  [RefreshFlowStatus.WAITING]: "○",
  [RefreshFlowStatus.RUNNING]: "▶",
  [RefreshFlowStatus.COMPLETED]: "●",
  [RefreshFlowStatus.COMPLETED_LATE]: "◐",
  [RefreshFlowStatus.SKIPPED]: "–",
  [RefreshFlowStatus.FAILED]: "✖",
  [RefreshFlowStatus.BLOCKED]: "■",
};
const MOST = 500;

export function RefreshPlan({ flows }: { flows: RefreshFlow[] }) {
  const ordered = [...flows].sort((one, other) => one.level - other.level || one.instanceName.localeCompare(other.instanceName));
  return (
    <>
      <Table label="Flows of the refresh" columns={["Flow", "Status", "Why", "Run"]}>
        {ordered.slice(0, MOST).map((each) => (
          <tr key={flowKey(each.flow)}>
            <th scope="row" className={`level-${Math.min(each.level, 9)}`}>
              {each.hidden ? "hidden" : <Link to={`/instances/${each.flow?.instanceId}`}>{each.instanceName}</Link>}{" "}
              <span className="quiet">{each.flow && flowWord(each.flow.flowKind)}</span>
            </th>
            <td>
              <span aria-hidden="true">{SHAPES[each.status] ?? "?"}</span> {word(RefreshFlowStatus, each.status)}
              {each.skipReason ? `, ${word(RefreshSkipReason, each.skipReason)}` : ""}
            </td>
            <td>{each.reason}</td>
            <td>{each.runId && <Link to={`/runs/${each.runId}`}>#{String(each.runNumber)}</Link>}</td>
          </tr>
        ))}
      </Table>
      {flows.length > MOST && <p className="quiet">and {(flows.length - MOST).toLocaleString()} more, which this table leaves out</p>}
    </>
  );
}
