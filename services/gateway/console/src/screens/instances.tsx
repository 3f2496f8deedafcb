/** All instances: filtered by what the address bar says, a page at a time, each with its live status. */
import { useInfiniteQuery } from "@connectrpc/connect-query";
import { Link, useSearchParams } from "react-router";

import { useNewest } from "../api/live";
import { Status } from "../gen/optaic/common/v1/flow_pb";
import { InstanceKind } from "../gen/optaic/instance/v1/instance_pb";
import { CauseKind } from "../gen/optaic/lineage/v1/lineage_pb";
import { type InstanceStatus } from "../gen/optaic/status/v1/status_pb";
import { StatusService } from "../gen/optaic/status/v1/status_service_pb";
import { Choice } from "../parts/choice";
import { chosen } from "../parts/choices";
import { CopyAs, quoted } from "../parts/command";
import { useTitle } from "../parts/frame";
import { Empty, Found, Unknown } from "../parts/states";
import { StatusMark } from "../parts/status";
import { ShowMore, Table } from "../parts/table";
import { Since } from "../parts/time";
import { kindWord, word } from "../parts/words";

const PAGE = 100;
const CHOICES = [
  { name: "status", title: "Status", type: Status },
  { name: "kind", title: "Kind", type: InstanceKind },
  { name: "cause", title: "Cause", type: CauseKind },
] as const;

export function Instances() {
  useTitle("Instances");
  const [search, setSearch] = useSearchParams();
  const filters = CHOICES.map((each) => ({ ...each, ...chosen(each.type, search.getAll(each.name)) }));
  const [statuses, kinds, causes] = filters.map((each) => each.known) as [number[], number[], number[]];
  const [owner, prefix] = [search.get("owner") ?? "", search.get("name") ?? ""];
  const labels = Object.fromEntries(search.getAll("label").map((each) => each.split(/=(.*)/s).slice(0, 2) as [string, string]));
  const unknown = filters.flatMap((each) => each.unknown);
  const query = useInfiniteQuery(
    StatusService.method.listInstanceStatuses,
    { statuses, kinds, causeKinds: causes, owner, namePrefix: prefix, labels, withCounts: true, pageSize: PAGE, pageToken: "" },
    { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined },
  );
  const change = (name: string, values: string[]) => {
    const next = new URLSearchParams(search);
    next.delete(name);
    for (const each of values) if (each) next.append(name, each);
    setSearch(next, { replace: true });
  };
  return (
    <>
      <h1>Instances</h1>
      <form className="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <label>
          Name begins with
          <input type="search" value={prefix} onChange={(event) => change("name", [event.target.value])} />
        </label>
        {filters.map(({ name, title, type, known }) => (
          <Choice key={name} title={title} type={type} known={known} onChange={(value) => change(name, [value])} />
        ))}
        <label>
          Owner
          <input value={owner} onChange={(event) => change("owner", [event.target.value])} />
        </label>
        <label>
          Label (name=value)
          <input
            defaultValue={search.getAll("label").join(" ")}
            onBlur={(event) => change("label", event.target.value.split(/\s+/).filter((each) => each.includes("=")))}
          />
        </label>
        {search.size > 0 && (
          <button type="button" onClick={() => setSearch({}, { replace: true })}>
            Show all
          </button>
        )}
      </form>
      <Unknown filters={unknown} />
      <Found what="Instances" query={query}>
        {({ pages }) => {
          const rows = pages.flatMap((each) => each.instanceStatuses);
          const counted = pages[0]?.statusCounts.reduce((sum, each) => sum + each.instanceCount, 0n) ?? 0n;
          if (!rows.length) return <Empty>{search.size ? "No instance is so." : "There is no instance yet."}</Empty>;
          return (
            <>
              <p>
                {rows.length.toLocaleString()} of {counted.toLocaleString()} instances{" "}
                <CopyAs command={asCommand(search)} python={asPython(search)} />
              </p>
              <InstanceTable rows={rows} />
              <ShowMore query={query} />
            </>
          );
        }}
      </Found>
    </>
  );
}

function InstanceTable({ rows }: { rows: InstanceStatus[] }) {
  const newest = useNewest(rows);
  return (
    <Table label="Instances" columns={["Name", "Kind", "Status", "Since", "Last run", "Why"]}>
      {newest.map((each) => (
        <tr key={each.instanceId}>
          <th scope="row">
            <Link to={`/instances/${each.instanceId}`}>{each.instanceName}</Link>
          </th>
          <td>{kindWord(each.instanceKind)}</td>
          <td>
            <StatusMark status={each.status} />
          </td>
          <td>
            <Since time={each.statusSinceTime} />
          </td>
          <td>
            <Since time={each.lastRunTime} />
          </td>
          <td>{why(each)}</td>
        </tr>
      ))}
    </Table>
  );
}

/** The first thing that a flow says about itself, and how many others there are. */
function why(status: InstanceStatus): string {
  const said = status.flows.flatMap((each) => [
    ...(each.failure ? [`${each.failure.type}: ${each.failure.message}`] : []),
    ...each.causes.map((cause) => cause.message || word(CauseKind, cause.kind)),
  ]);
  return said.length > 1 ? `${said[0]} (and ${said.length - 1} more)` : (said[0] ?? "");
}

function asCommand(search: URLSearchParams): string {
  const options = { name: "--name-prefix", status: "--status", kind: "--kind", cause: "--cause", owner: "--owner", label: "--label" };
  const words = Object.entries(options).flatMap(([name, option]) => search.getAll(name).map((each) => ` ${option} ${quoted(each)}`));
  return `optaic status list${words.join("")}`;
}

function asPython(search: URLSearchParams): string {
  const text = JSON.stringify;
  const given = [
    ...(search.get("name") ? [`name_prefix=${text(search.get("name"))}`] : []),
    ...(search.has("status") ? [`statuses=${text(search.getAll("status"))}`] : []),
    ...(search.has("kind") ? [`kinds=${text(search.getAll("kind"))}`] : []),
    ...(search.has("cause") ? [`cause_kinds=${text(search.getAll("cause"))}`] : []),
    ...(search.get("owner") ? [`owner=${text(search.get("owner"))}`] : []),
    ...(search.has("label") ? [`labels=dict([${search.getAll("label").map((each) => text(each.split(/=(.*)/s).slice(0, 2)).replace("[", "(").replace(/]$/, ")"))}])`] : []),
  ];
  return `client.status.list(${given.join(", ")})`;
}
