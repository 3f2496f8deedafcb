/** How all of it stands: every number leads to the list behind it. */
import { useQuery } from "@connectrpc/connect-query";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { useQuery as useHttp } from "@tanstack/react-query";
import { Link } from "react-router";

import { Status } from "../gen/optaic/common/v1/flow_pb";
import { CauseKind } from "../gen/optaic/lineage/v1/lineage_pb";
import { RefreshStatus } from "../gen/optaic/run/v1/refresh_pb";
import { RunStatus } from "../gen/optaic/run/v1/run_pb";
import { RunService } from "../gen/optaic/run/v1/run_service_pb";
import { StatusService } from "../gen/optaic/status/v1/status_service_pb";
import { useTitle } from "../parts/frame";
import { Empty, Found } from "../parts/states";
import { StatusMark } from "../parts/status";
import { Since } from "../parts/time";


const MOST = 1000; // rows of an answer; what is beyond is said
const DAY_MS = 24 * 3_600_000;
const ORDER = [Status.ERROR, Status.STALE, Status.NOT_INITIALIZED, Status.RUNNING, Status.READY];

export function Overview() {
  useTitle("Overview");
  return (
    <>
      <h1>Overview</h1>
      <Counts />
      <div className="cards">
        <Stale />
        <Failed />
        <Running />
        <Refreshes />
        <Health />
      </div>
    </>
  );
}

function Counts() {
  const query = useQuery(StatusService.method.listInstanceStatuses, { withCounts: true, pageSize: 1 });
  return (
    <section aria-label="Instances by status">
      <Found what="The statuses" query={query}>
        {({ statusCounts }) => {
          const counts = new Map(statusCounts.map((each) => [each.status, each.instanceCount]));
          const all = [...counts.values()].reduce((sum, each) => sum + each, 0n);
          if (!all) return <Empty>There is no instance yet. `optaic apply` and `optaic instance create` make them.</Empty>;
          return (
            <ul className="counts">
              {ORDER.map((status) => (
                <li key={status}>
                  <Link to={`/instances?status=${Status[status].toLowerCase()}`}>
                    <span className="number">{(counts.get(status) ?? 0n).toLocaleString()}</span>
                    <StatusMark status={status} />
                  </Link>
                </li>
              ))}
              <li>
                <Link to="/instances">
                  <span className="number">{all.toLocaleString()}</span>
                  <span>all instances</span>
                </Link>
              </li>
            </ul>
          );
        }}
      </Found>
    </section>
  );
}

function Stale() {
  const stale = useQuery(StatusService.method.listInstanceStatuses, { statuses: [Status.STALE], pageSize: MOST });
  const overdue = useQuery(StatusService.method.listInstanceStatuses, {
    causeKinds: [CauseKind.OVERDUE, CauseKind.SOURCE_DELAYED],
    pageSize: MOST,
  });
  return (
    <section className="card">
      <h2>Stale</h2>
      <Found what="What is stale" query={stale}>
        {({ instanceStatuses, nextPageToken }) => {
          const oldest = instanceStatuses.reduce<(typeof instanceStatuses)[number] | undefined>((found, each) => {
            const time = each.statusSinceTime;
            const than = found?.statusSinceTime;
            return time && (!than || timestampDate(time) < timestampDate(than)) ? each : found;
          }, undefined);
          if (!oldest) return <Empty>Nothing is stale.</Empty>;
          const cause = oldest.flows.flatMap((each) => each.causes)[0];
          return (
            <p>
              Stale for the longest time{nextPageToken && ` of the first ${MOST.toLocaleString()}`}:{" "}
              <Link to={`/instances/${oldest.instanceId}`}>{oldest.instanceName}</Link>, since <Since time={oldest.statusSinceTime} />
              {cause?.message && <>: {cause.message}</>}
            </p>
          );
        }}
      </Found>
      <Found what="What is overdue" query={overdue}>
        {({ instanceStatuses, nextPageToken }) => (
          <p>
            <Link to="/instances?cause=overdue&cause=source_delayed">
              {count(instanceStatuses.length, nextPageToken)} overdue
            </Link>
          </p>
        )}
      </Found>
    </section>
  );
}

function Failed() {
  const query = useQuery(RunService.method.listRuns, { statuses: [RunStatus.FAILED], pageSize: MOST });
  return (
    <section className="card">
      <h2>Failed in 24 hours</h2>
      <Found what="Failed runs" query={query}>
        {({ runs, nextPageToken }) => {
          const begin = timestampFromDate(new Date(Date.now() - DAY_MS));
          const recent = runs.filter((each) => (each.endTime?.seconds ?? 0n) >= begin.seconds);
          if (!recent.length) return <Empty>No run failed.</Empty>;
          const more = recent.length === runs.length ? nextPageToken : "";
          return (
            <>
              <p>
                <Link to="/runs?status=failed">{count(recent.length, more)} runs</Link>
              </p>
              <ul>
                {recent.slice(0, 5).map((each) => (
                  <li key={each.runId}>
                    <Link to={`/runs/${each.runId}`}>
                      {each.error?.type || "failed"} #{String(each.runNumber)}
                    </Link>{" "}
                    <Since time={each.endTime} />
                  </li>
                ))}
              </ul>
            </>
          );
        }}
      </Found>
    </section>
  );
}

function Running() {
  const query = useQuery(RunService.method.listRuns, {
    statuses: [RunStatus.RUNNING, RunStatus.PENDING],
    pageSize: MOST,
  });
  return (
    <section className="card">
      <h2>Running now</h2>
      <Found what="Running runs" query={query}>
        {({ runs, nextPageToken }) => {
          if (!runs.length) return <Empty>No run is active.</Empty>;
          const running = runs.filter((each) => each.status === RunStatus.RUNNING).length;
          return (
            <p>
              <Link to="/runs?status=running&status=pending">
                {count(running, nextPageToken)} running, {count(runs.length - running, nextPageToken)} waiting
              </Link>
            </p>
          );
        }}
      </Found>
    </section>
  );
}

function Refreshes() {
  const query = useQuery(RunService.method.listRefreshes, { statuses: [RefreshStatus.RUNNING], pageSize: 10 });
  return (
    <section className="card">
      <h2>Refreshes under way</h2>
      <Found what="Refreshes" query={query}>
        {({ refreshes, nextPageToken }) => {
          if (!refreshes.length) return <Empty>No refresh is under way.</Empty>;
          return (
            <ul>
              {refreshes.map((each) => (
                <li key={each.refreshId}>
                  <Link to={`/refreshes/${each.refreshId}`}>by {each.actor || "unknown"}</Link> <Since time={each.submitTime} />:{" "}
                  {each.counts?.running ?? 0} running, {each.counts?.waiting ?? 0} waiting, {each.counts?.failed ?? 0} failed
                </li>
              ))}
              {nextPageToken && <li>and more</li>}
            </ul>
          );
        }}
      </Found>
    </section>
  );
}

function Health() {
  const query = useHttp({
    queryKey: ["readyz"],
    refetchInterval: 10_000,
    queryFn: async () => (await (await fetch("/readyz")).json()) as Record<string, boolean>,
  });
  return (
    <section className="card">
      <h2>Services</h2>
      <Found what="The health of the services" query={query}>
        {(answers) => (
          <ul>
            {Object.entries(answers).map(([name, ready]) => (
              <li key={name}>
                {name}: {ready ? "connected" : <strong>not connected</strong>}
              </li>
            ))}
          </ul>
        )}
      </Found>
    </section>
  );
}

function count(number: number, more: string): string {
  return more ? `${number.toLocaleString()} or more` : number.toLocaleString();
}
