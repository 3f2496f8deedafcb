/** One run: what it read, what it made, what it said, and how it ended. */
import { type JsonObject, create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { useMutation, useQuery } from "@connectrpc/connect-query";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { useEffect, useState } from "react";
import { Link, useNavigate, useParams } from "react-router";

import { useStream } from "../api/stream";
import { transport } from "../api/transport";
import { InstanceService } from "../gen/optaic/instance/v1/instance_service_pb";
import { type LogLine, LogLevel } from "../gen/optaic/run/v1/run_log_pb";
import { type Run, RunStatus } from "../gen/optaic/run/v1/run_pb";
import { RunService, WatchRunLogsRequestSchema, WatchRunRequestSchema } from "../gen/optaic/run/v1/run_service_pb";
import { CopyAs } from "../parts/command";
import { useTitle } from "../parts/frame";
import { Json } from "../parts/json";
import { RunMark, taken } from "../parts/runs";
import { Empty, Found, Loading, Problem } from "../parts/states";
import { Since, exact } from "../parts/time";
import { flowWord, word } from "../parts/words";

const MOST_LINES = 5000;
const ENDED = new Set([RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED]);

export function RunScreen() {
  const { id = "" } = useParams();
  const [run, setRun] = useState<Run>();
  const error = useStream(id, async (signal) => {
    for await (const each of createClient(RunService, transport).watchRun(create(WatchRunRequestSchema, { runId: id }), { signal })) {
      setRun(each);
    }
  });
  useTitle(run ? `Run #${String(run.runNumber)}` : "Run");
  if (!run || run.runId !== id) return error ? <Problem what="The run" error={error} /> : <Loading what="the run" />;
  return <Shown run={run} error={error} />;
}

function Shown({ run, error }: { run: Run; error: unknown }) {
  const instance = useQuery(InstanceService.method.getInstance, { instanceId: run.instanceId });
  return (
    <>
      <h1>
        Run #{String(run.runNumber)} of <Link to={`/instances/${run.instanceId}`}>{instance.data?.name ?? run.instanceId}</Link>{" "}
        <span className="quiet">{flowWord(run.flowKind)}</span>
      </h1>
      {Boolean(error) && <Problem what="The newest state of the run" error={error} />}
      <p className="large" role="status">
        <RunMark status={run.status} /> {taken(run) && `after ${taken(run)}`} {run.status === RunStatus.RUNNING && run.progressMessage}
      </p>
      {run.status === RunStatus.RUNNING && <progress max={100} value={run.progressPct} aria-label="Progress" />}
      {run.error && (
        <div className="problem">
          <strong>{run.error.type}</strong>: {run.error.message}
          {run.error.lastLines.length > 0 && <pre tabIndex={0}>{run.error.lastLines.join("\n")}</pre>}
        </div>
      )}
      <Actions run={run} />
      <div className="cards">
        <section className="card">
          <h2>About</h2>
          <dl>
            <dt>By</dt>
            <dd>{run.actor}</dd>
            <dt>Submitted</dt>
            <dd>
              <Since time={run.submitTime} />
            </dd>
            <dt>Attempt</dt>
            <dd>
              {run.attempt} {run.retryOfRunId && <Link to={`/runs/${run.retryOfRunId}`}>a retry of this run</Link>}
            </dd>
            {run.forced && (
              <>
                <dt>Forced</dt>
                <dd>{run.forceReason}</dd>
              </>
            )}
            <dt>Output</dt>
            <dd>{run.outputVersion?.version ? `version ${String(run.outputVersion.version)}` : "none"}</dd>
            {run.fullBecause && (
              <>
                <dt>Full because</dt>
                <dd>{run.fullBecause}</dd>
              </>
            )}
            {run.telemetryPending.length > 0 && (
              <>
                <dt>Still to be told</dt>
                <dd>{run.telemetryPending.join(", ")}</dd>
              </>
            )}
          </dl>
        </section>
        <section className="card">
          <h2>Inputs</h2>
          {!run.inputVersions.length && <Empty>It read no other instance.</Empty>}
          <ul>
            {run.inputVersions.map((each) => (
              <li key={`${each.instanceId}/${each.role}/${each.flowKind}`}>
                {each.role}: {each.hidden ? "hidden" : <Link to={`/instances/${each.instanceId}`}>{each.instanceName}</Link>} version {String(each.version)}
              </li>
            ))}
          </ul>
        </section>
        <section className="card">
          <h2>Files</h2>
          {!run.artifactManifest.length && <Empty>It wrote no file.</Empty>}
          <ul>
            {run.artifactManifest.map((each) => (
              <li key={each.name}>
                <a href={`/runs/${run.runId}/artifacts/${each.name.split("/").map(encodeURIComponent).join("/")}`} download>
                  {each.name}
                </a>{" "}
                <span className="quiet">{Number(each.sizeBytes).toLocaleString()} bytes</span>
              </li>
            ))}
          </ul>
        </section>
      </div>
      <Metrics metrics={run.metrics} />
      {run.parameters && Object.keys(run.parameters).length > 0 && (
        <section>
          <h2>Parameters</h2>
          <Json value={run.parameters} />
        </section>
      )}
      <Log key={run.runId} runId={run.runId} isOver={ENDED.has(run.status)} />
      <Activities run={run} />
    </>
  );
}

function Actions({ run }: { run: Run }) {
  const go = useNavigate();
  const cancel = useMutation(RunService.method.cancelRun);
  const retry = useMutation(RunService.method.retryRun, { onSuccess: (again) => go(`/runs/${again.runId}`) });
  const over = ENDED.has(run.status);
  return (
    <>
      <p className="buttons">
        {!over && (
          <button type="button" disabled={cancel.isPending} onClick={() => cancel.mutate({ runId: run.runId, reason: "by the console", requestId: crypto.randomUUID() })}>
            Cancel
          </button>
        )}
        {(run.status === RunStatus.FAILED || run.status === RunStatus.CANCELLED) && (
          <button type="button" disabled={retry.isPending} onClick={() => retry.mutate({ runId: run.runId, requestId: crypto.randomUUID() })}>
            Retry
          </button>
        )}
        <CopyAs command={`optaic run get ${run.runId}`} python={`client.runs.get(${JSON.stringify(run.runId)})`} />
      </p>
      {cancel.error && <Problem what="The cancellation" error={cancel.error} />}
      {retry.error && <Problem what="The retry" error={retry.error} />}
    </>
  );
}

function Metrics({ metrics }: { metrics: JsonObject | undefined }) {
  const entries = Object.entries(metrics ?? {}).sort(([one], [other]) => one.localeCompare(other));
  if (!entries.length) return null;
  const plain = entries.filter(([, value]) => value === null || typeof value !== "object");
  const rest = Object.fromEntries(entries.filter(([, value]) => value !== null && typeof value === "object"));
  return (
    <section>
      <h2>Metrics</h2>
      <dl className="metrics">
        {plain.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{typeof value === "number" ? value.toLocaleString(undefined, { maximumSignificantDigits: 6 }) : String(value)}</dd>
          </div>
        ))}
      </dl>
      {Object.keys(rest).length > 0 && (
        <details>
          <summary>Tables of metrics</summary>
          <Json value={rest} />
        </details>
      )}
    </section>
  );
}

function Log({ runId, isOver }: { runId: string; isOver: boolean }) {
  const [lines, setLines] = useState<LogLine[]>([]);
  const [dropped, setDropped] = useState(0);
  const [missing, setMissing] = useState(false);
  const [position, setPosition] = useState("");
  const error = useStream(runId, async (signal) => {
    const request = create(WatchRunLogsRequestSchema, { runId, position });
    for await (const each of createClient(RunService, transport).watchRunLogs(request, { signal })) {
      setPosition(each.position);
      setMissing(each.isIncomplete);
      setLines((before) => {
        const all = [...before, ...each.lines];
        if (all.length > MOST_LINES) setDropped((count) => count + all.length - MOST_LINES);
        return all.slice(-MOST_LINES);
      });
    }
  });
  return (
    <section>
      <h2>Log</h2>
      {Boolean(error) && <Problem what="The newest lines" error={error} />}
      {dropped > 0 && <p className="quiet">The first {dropped.toLocaleString()} lines are left out: `optaic run logs {runId}` has all.</p>}
      {!lines.length && <Empty>{isOver ? "It said nothing." : "It has said nothing yet."}</Empty>}
      {lines.length > 0 && (
        <pre tabIndex={0} aria-label="Log" className="log">
          {lines.map((each, number) => (
            <span key={dropped + number} className={`log-${word(LogLevel, each.level)}`}>
              {each.time && <time title={exact(timestampDate(each.time))}>{timestampDate(each.time).toLocaleTimeString()}</time>} {each.message}
              {"\n"}
            </span>
          ))}
        </pre>
      )}
      {missing && <p className="quiet">The worker has not delivered all lines yet.</p>}
    </section>
  );
}

function Activities({ run }: { run: Run }) {
  const query = useQuery(RunService.method.listActivities, { runId: run.runId, pageSize: 200 });
  const { refetch } = query;
  useEffect(() => {
    void refetch();
  }, [refetch, run.status]);
  return (
    <section>
      <h2>What happened</h2>
      <Found what="The activities" query={query}>
        {({ activities, nextPageToken }) => (
          <ol className="history">
            {activities.map((each) => (
              <li key={each.activityId}>
                <Since time={each.createTime} /> {each.type.split(".").at(-1)?.replaceAll("_", " ")} <span className="quiet">{each.actor}</span> {each.message}
              </li>
            ))}
            {nextPageToken && <li className="quiet">and more: `optaic run activities {run.runId}`</li>}
          </ol>
        )}
      </Found>
    </section>
  );
}
