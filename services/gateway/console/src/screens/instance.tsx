/** One instance: how it stands and why, what it is made of, what it ran, and what can be done. */
import { toJson } from "@bufbuild/protobuf";
import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { Link, useParams } from "react-router";

import { useNewest } from "../api/live";
import { Status } from "../gen/optaic/common/v1/flow_pb";
import { type Instance, InstanceSchema, InstanceState } from "../gen/optaic/instance/v1/instance_pb";
import { InstanceService } from "../gen/optaic/instance/v1/instance_service_pb";
import { LineageService } from "../gen/optaic/lineage/v1/lineage_service_pb";
import { RunService } from "../gen/optaic/run/v1/run_service_pb";
import type { FlowStatus, InstanceStatus } from "../gen/optaic/status/v1/status_pb";
import { StatusService } from "../gen/optaic/status/v1/status_service_pb";
import { CopyAs, quoted } from "../parts/command";
import { flowKey } from "../parts/flows";
import { useTitle } from "../parts/frame";
import { Json } from "../parts/json";
import { RunTable } from "../parts/runs";
import { Empty, Found, Problem } from "../parts/states";
import { StatusMark } from "../parts/status";
import { Since, duration } from "../parts/time";
import { flowWord, kindWord, word } from "../parts/words";
import { RefreshQuestion } from "./refresh_question";
import { Why } from "./why";

const RUNS = 10;

export function InstanceScreen() {
  const { id = "" } = useParams();
  const query = useQuery(InstanceService.method.getInstance, { instanceId: id });
  useTitle(query.data?.name ?? "Instance");
  return (
    <Found what="The instance" query={query}>
      {(instance) => (
        <>
          <h1>
            {instance.name} <span className="quiet">{kindWord(instance.kind)}</span>
          </h1>
          {instance.description && <p>{instance.description}</p>}
          <Standing instance={instance} />
          <Actions instance={instance} />
          <div className="cards">
            <About instance={instance} />
            <Inputs instance={instance} />
          </div>
          <Runs instance={instance} />
          <History instance={instance} />
          <details>
            <summary>All of it, as JSON</summary>
            <Json value={toJson(InstanceSchema, instance)} />
          </details>
        </>
      )}
    </Found>
  );
}

function Standing({ instance }: { instance: Instance }) {
  const query = useQuery(StatusService.method.getInstanceStatus, { instanceId: instance.instanceId });
  return (
    <section aria-label="Status">
      <Found what="The status" query={query}>
        {(status) => <Live status={status} />}
      </Found>
    </section>
  );
}

function Live({ status }: { status: InstanceStatus }) {
  const [newest] = useNewest([status]);
  if (!newest) return <p className="problem">The instance was deleted.</p>;
  return (
    <>
      <p className="large" role="status">
        <StatusMark status={newest.status} /> since <Since time={newest.statusSinceTime} />
      </p>
      {newest.flows.map((flow) => (
        <FlowStanding key={flow.flowKind} flow={flow} instanceId={newest.instanceId} />
      ))}
    </>
  );
}

function FlowStanding({ flow, instanceId }: { flow: FlowStatus; instanceId: string }) {
  const { flowKind } = flow;
  return (
    <section className="card">
      <h2>
        {flowWord(flowKind)} <StatusMark status={flow.status} />
      </h2>
      <dl>
        <dt>Version</dt>
        <dd>{flow.version ? String(flow.version) : "none yet"}</dd>
        {flow.lastDataDate && (
          <>
            <dt>Data until</dt>
            <dd>
              {flow.lastDataDate}
              {flow.expectedDataDate && flow.expectedDataDate !== flow.lastDataDate && `, expected ${flow.expectedDataDate}`}
            </dd>
          </>
        )}
        <dt>Last run</dt>
        <dd>
          {flow.lastRunId ? <Link to={`/runs/${flow.lastRunId}`}>#{String(flow.runNumber)}</Link> : "none"} <Since time={flow.lastRunTime} />
        </dd>
        {flow.acceptedStaleness && (
          <>
            <dt>Accepted</dt>
            <dd>
              by {flow.acceptedStaleness.actor}: {flow.acceptedStaleness.reason}
            </dd>
          </>
        )}
      </dl>
      {flow.status !== Status.READY && <Why flow={{ $typeName: "optaic.common.v1.FlowRef", instanceId, flowKind }} />}
    </section>
  );
}

function Actions({ instance }: { instance: Instance }) {
  const { instanceId, name } = instance;
  const [asking, setAsking] = useState<"" | "upstream" | "downstream">("");
  const paused = instance.state === InstanceState.PAUSED;
  const pause = useMutation(InstanceService.method.pauseInstance);
  const resume = useMutation(InstanceService.method.resumeInstance);
  const change = () => {
    const request = { instanceId, etag: instance.etag, requestId: crypto.randomUUID() };
    if (paused) resume.mutate(request);
    else pause.mutate(request);
  };
  return (
    <>
      <p className="buttons">
        <button type="button" className="main" onClick={() => setAsking("upstream")}>
          Refresh with what is above
        </button>
        <button type="button" onClick={() => setAsking("downstream")}>
          Refresh with what is below
        </button>
        <button type="button" disabled={pause.isPending || resume.isPending} onClick={change}>
          {paused ? "Resume" : "Pause"}
        </button>
        <Link to={`/lineage?flow=${instanceId}`}>Lineage</Link>
        <CopyAs command={`optaic refresh ${quoted(name)} --upstream`} python={`client.refresh(${JSON.stringify(name)}, upstream=True)`} />
      </p>
      {pause.error && <Problem what="The pause" error={pause.error} />}
      {resume.error && <Problem what="The resumption" error={resume.error} />}
      {asking && (
        <RefreshQuestion
          selection={{ instanceIds: [instanceId], includeUpstream: asking === "upstream", includeDownstream: asking === "downstream" }}
          onEnd={() => setAsking("")}
        />
      )}
    </>
  );
}

function About({ instance }: { instance: Instance }) {
  const timing = instance.schedule?.timing;
  return (
    <section className="card">
      <h2>About</h2>
      <dl>
        <dt>State</dt>
        <dd>{word(InstanceState, instance.state)}</dd>
        <dt>Owner</dt>
        <dd>{instance.owner || "none"}</dd>
        <dt>Definition</dt>
        <dd>
          {instance.definitionName} {instance.definitionVersion}
          {instance.trackNewest && ", the newest"}
        </dd>
        <dt>Revision</dt>
        <dd>
          {String(instance.revision)}, <Since time={instance.updateTime} />
        </dd>
        <dt>Schedule</dt>
        <dd>
          {timing?.case === "cron" && `${timing.value.expression} (${timing.value.timezone || "UTC"})`}
          {timing?.case === "interval" && "at an interval"}
          {(!timing?.case || timing.case === "manual") && "none"}
          {instance.schedule?.enabled === false && ", disabled"}
        </dd>
        <dt>Labels</dt>
        <dd>{Object.entries(instance.labels).map(([name, value]) => `${name}=${value}`).join(", ") || "none"}</dd>
      </dl>
      {instance.conditions.map((each) => (
        <p key={each.type} className="quiet">
          {each.type}: {each.message}
        </p>
      ))}
      <h2>Configuration</h2>
      <Json value={instance.config ?? {}} />
    </section>
  );
}

function Inputs({ instance }: { instance: Instance }) {
  const flow = instance.flows[0];
  const query = useQuery(
    LineageService.method.getLineageGraph,
    { flow: { instanceId: instance.instanceId, flowKind: flow?.flowKind ?? 0 }, upstreamDepth: 1, downstreamDepth: 1 },
    { enabled: flow !== undefined },
  );
  if (!flow) return null;
  return (
    <section className="card">
      <Found what="Inputs and readers" query={query}>
        {({ flows, edges }) => {
          const states = new Map(flows.map((each) => [flowKey(each.flow), each]));
          const above = edges.filter((each) => each.downstream?.instanceId === instance.instanceId);
          const below = edges.filter((each) => each.upstream?.instanceId === instance.instanceId);
          return (
            <>
              <h2>Reads</h2>
              {!above.length && <Empty>It reads no other instance.</Empty>}
              <ul>
                {above.map((each) => {
                  const state = states.get(flowKey(each.upstream));
                  return (
                    <li key={`${flowKey(each.upstream)}/${each.role}/${flowKey(each.downstream)}`}>
                      {each.role}: {state && !state.hidden ? <Link to={`/instances/${each.upstream?.instanceId}`}>{state.instanceName}</Link> : "hidden"}{" "}
                      {state && <StatusMark status={state.status} />} version {String(each.consumedVersion) === "0" ? "none" : String(each.consumedVersion)} read,{" "}
                      {String(state?.currentVersion?.version ?? 0n)} now
                    </li>
                  );
                })}
              </ul>
              <h2>Is read by</h2>
              {!below.length && <Empty>No instance reads it.</Empty>}
              <ul>
                {below.map((each) => {
                  const state = states.get(flowKey(each.downstream));
                  return (
                    <li key={`${flowKey(each.downstream)}/${each.role}`}>
                      {state && !state.hidden ? <Link to={`/instances/${each.downstream?.instanceId}`}>{state.instanceName}</Link> : "hidden"} as {each.role}{" "}
                      {state && <StatusMark status={state.status} />}
                    </li>
                  );
                })}
              </ul>
            </>
          );
        }}
      </Found>
    </section>
  );
}

function Runs({ instance }: { instance: Instance }) {
  const query = useQuery(RunService.method.listRuns, { instanceId: instance.instanceId, pageSize: RUNS });
  return (
    <section>
      <h2>Recent runs</h2>
      <Found what="Runs" query={query}>
        {({ runs, nextPageToken }) => (
          <>
            {runs.length ? <RunTable runs={runs} /> : <Empty>It has not run yet.</Empty>}
            {nextPageToken && <Link to={`/runs?instance=${instance.instanceId}`}>All runs</Link>}
          </>
        )}
      </Found>
    </section>
  );
}

function History({ instance }: { instance: Instance }) {
  const query = useQuery(StatusService.method.getStatusHistory, { instanceId: instance.instanceId, pageSize: 20, onlyStatusChanges: true });
  return (
    <section>
      <h2>Status history</h2>
      <Found what="The history" query={query}>
        {({ transitions, nextPageToken }) => (
          <ul className="history">
            {transitions.map((each) => (
              <li key={String(each.revision)}>
                <StatusMark status={each.toStatus} /> <Since time={each.createTime} />
                {each.duration && `, for ${duration(Number(each.duration.seconds) * 1000)}`}{" "}
                {each.causedByRunId && <Link to={`/runs/${each.causedByRunId}`}>by a run</Link>}
              </li>
            ))}
            {nextPageToken && <li className="quiet">earlier changes: `optaic status history {instance.name}`</li>}
          </ul>
        )}
      </Found>
    </section>
  );
}
