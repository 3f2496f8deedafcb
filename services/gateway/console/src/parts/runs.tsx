/** Runs in a table, and how long each took. */
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Link } from "react-router";

import { type Run, RunStatus, RunTrigger } from "../gen/optaic/run/v1/run_pb";
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
    <div className="scrolls" tabIndex={0} role="region" aria-label="Runs">
      <table>
        <thead>
          <tr>
            <th scope="col">Run</th>
            {names && <th scope="col">Instance</th>}
            <th scope="col">Flow</th>
            <th scope="col">Status</th>
            <th scope="col">Submitted</th>
            <th scope="col">Took</th>
            <th scope="col">By</th>
            <th scope="col">Note</th>
          </tr>
        </thead>
        <tbody>
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
        </tbody>
      </table>
    </div>
  );
}
