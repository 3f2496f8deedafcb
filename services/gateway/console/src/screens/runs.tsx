/** Runs: a list, filtered by what the address bar says. */
import { useInfiniteQuery, useQuery } from "@connectrpc/connect-query";
import { useSearchParams } from "react-router";

import { InstanceService } from "../gen/optaic/instance/v1/instance_service_pb";
import { RunStatus } from "../gen/optaic/run/v1/run_pb";
import { RunService } from "../gen/optaic/run/v1/run_service_pb";
import { Choice } from "../parts/choice";
import { CopyAs } from "../parts/command";
import { chosen } from "../parts/choices";
import { useTitle } from "../parts/frame";
import { RunTable } from "../parts/runs";
import { Empty, Found, Unknown } from "../parts/states";
import { ShowMore } from "../parts/table";
import { word } from "../parts/words";

const PAGE = 100;
const MOST_NAMES = 1000; // instances of one question

export function Runs() {
  useTitle("Runs");
  const [search, setSearch] = useSearchParams();
  const instanceId = search.get("instance") ?? "";
  const { known, unknown } = chosen(RunStatus, search.getAll("status"));
  const query = useInfiniteQuery(
    RunService.method.listRuns,
    { instanceId, statuses: known, pageSize: PAGE, pageToken: "" },
    { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined },
  );
  const runs = query.data?.pages.flatMap((each) => each.runs) ?? [];
  const wanted = [...new Set(runs.map((each) => each.instanceId))].sort().slice(0, MOST_NAMES);
  const named = useQuery(InstanceService.method.batchGetInstances, { instanceIds: wanted }, { enabled: wanted.length > 0 });
  const names = new Map(named.data?.instances.map((each) => [each.instanceId, each.name]));
  const change = (name: string, value: string) => {
    const next = new URLSearchParams(search);
    next.delete(name);
    if (value) next.append(name, value);
    setSearch(next, { replace: true });
  };
  return (
    <>
      <h1>Runs</h1>
      <form className="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Choice title="Status" type={RunStatus} known={known} onChange={(value) => change("status", value)} />
        {search.size > 0 && (
          <button type="button" onClick={() => setSearch({}, { replace: true })}>
            Show all
          </button>
        )}
        <CopyAs
          command={`optaic run list${instanceId && ` ${instanceId}`}${known.map((each) => ` --status ${word(RunStatus, each)}`).join("")}`}
          python={`client.runs.list(${[...(instanceId ? [JSON.stringify(instanceId)] : []), ...(known.length ? [`statuses=${JSON.stringify(known.map((each) => word(RunStatus, each)))}`] : [])].join(", ")})`}
        />
      </form>
      <Unknown filters={unknown} />
      <Found what="Runs" query={query}>
        {() => (
          <>
            {runs.length ? <RunTable runs={runs} names={names} /> : <Empty>{search.size ? "No run is so." : "Nothing has run yet."}</Empty>}
            <ShowMore query={query} />
          </>
        )}
      </Found>
    </>
  );
}
