/** Runs in a table, and how long each took. */
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Link } from "react-router";

import { type Run, RunStatus, RunTrigger } from "../gen/optaic/run/v1/run_pb";
import { Table } from "./table";
import { Since, duration } from "./time";
import { flowWord, word } from "./words";

const SHAPES: Record<number, string> = {
  [RunStatus.PENDING]: "○",
  [RunStatus.RUNNING]: "▶",
  [RunStatus.COMPLETED]: "●",
  [RunStatus.FAILED]: "✖",
  [RunStatus.CANCELLED]: "◌",
};

export function RunMark({ status }: { status: RunStatus }) {
  const name = word(RunStatus, status);
  return (
    <span className={`status run-${name}`}>
      <span aria-hidden="true">{SHAPES[status] ?? "?"}</span>
      {name}
    </span>
  );
}

/** How long a run took, or has taken; nothing before it began. */
export function taken(run: Run): string {
  if (!run.startTime) return "";
  const end = run.endTime ? timestampDate(run.endTime) : new Date();
  return duration(Math.max(0, end.getTime() - timestampDate(run.startTime).getTime()));
}

export function RunTable({ runs, names }: { runs: Run[]; names?: Map<string, string> }) {
  return (
    <Table label="Runs" columns={["Run", ...(names ? ["Instance"] : []), "Flow", "Status", "Submitted", "Took", "By", "Note"]}>
      {runs.map((run) => (
        <tr key={run.runId}>
          <th scope="row">
            <Link to={`/runs/${run.runId}`}>#{String(run.runNumber)}</Link>
          </th>
          {names && (
            <td>
              <Link to={`/instances/${run.instanceId}`}>{names.get(run.instanceId) ?? run.instanceId}</Link>
            </td>
          )}
          <td>{flowWord(run.flowKind)}</td>
          <td>
            <RunMark status={run.status} />
          </td>
          <td>
            <Since time={run.submitTime} />
          </td>
          <td>{taken(run)}</td>
          <td>
            {run.actor} ({word(RunTrigger, run.trigger)})
          </td>
          <td>{run.error ? `${run.error.type}: ${run.error.message}` : run.status === RunStatus.RUNNING ? run.progressMessage : ""}</td>
        </tr>
      ))}
    </Table>
  );
}
