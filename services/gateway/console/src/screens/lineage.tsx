/** The lineage of a flow: what it reads and what reads it, drawn in layers, or as a table. */
import { useQuery } from "@connectrpc/connect-query";
import { Background, Controls, type Edge as Line, Handle, type Node, type NodeProps, Position, ReactFlow } from "@xyflow/react";
import "@xyflow/react/dist/style.css";
import ELK from "elkjs/lib/elk-api.js";
import workerUrl from "elkjs/lib/elk-worker.min.js?url";
import { useEffect, useMemo, useState } from "react";
import { Link, useNavigate, useSearchParams } from "react-router";

import { Status } from "../gen/optaic/common/v1/flow_pb";
import { InstanceService } from "../gen/optaic/instance/v1/instance_service_pb";
import type { FlowState } from "../gen/optaic/lineage/v1/lineage_pb";
import { type GetLineageGraphResponse, LineageService } from "../gen/optaic/lineage/v1/lineage_service_pb";
import { flowKey } from "../parts/flows";
import { useTitle } from "../parts/frame";
import { Empty, Found, Problem } from "../parts/states";
import { StatusMark, statusClass } from "../parts/status";
import { Table } from "../parts/table";
import { causeWord, flowWord, kindWord } from "../parts/words";

const HOPS = 2;
const [WIDTH, HEIGHT] = [190, 48];

export function Lineage() {
  useTitle("Lineage");
  const [search, setSearch] = useSearchParams();
  const instanceId = search.get("flow") ?? "";
  const hops = (name: string) => Math.min(50, Math.max(0, Number(search.get(name) ?? HOPS) || 0));
  const [above, below] = [hops("above"), hops("below")];
  const asTable = search.get("view") === "table";
  const instance = useQuery(InstanceService.method.getInstance, { instanceId }, { enabled: instanceId !== "" });
  const flowKind = instance.data?.flows[0]?.flowKind;
  const graph = useQuery(
    LineageService.method.getLineageGraph,
    { flow: { instanceId, flowKind: flowKind ?? 0 }, upstreamDepth: above, downstreamDepth: below },
    { enabled: flowKind !== undefined },
  );
  const set = (name: string, value: string) => {
    const next = new URLSearchParams(search);
    next.set(name, value);
    setSearch(next, { replace: true });
  };
  if (!instanceId) return <Empty>Choose an instance first: its page leads to its lineage.</Empty>;
  if (instance.error) return <Problem what="The instance" error={instance.error} />;
  if (instance.data && flowKind === undefined) return <Empty>{instance.data.name} has no flow, so it has no lineage.</Empty>;
  return (
    <>
      <h1>
        Lineage of <Link to={`/instances/${instanceId}`}>{instance.data?.name ?? "…"}</Link>
      </h1>
      <form className="filters" onSubmit={(event) => event.preventDefault()}>
        <label>
          Steps above
          <input type="number" min={0} max={50} value={above} onChange={(event) => set("above", event.target.value)} />
        </label>
        <label>
          Steps below
          <input type="number" min={0} max={50} value={below} onChange={(event) => set("below", event.target.value)} />
        </label>
        <button type="button" onClick={() => set("view", asTable ? "graph" : "table")}>
          {asTable ? "Show as a graph" : "Show as a table"}
        </button>
      </form>
      <Found what="The lineage" query={graph}>
        {(data) => (
          <>
            {data.isTruncated && <p className="problem">The graph is larger than an answer may be; flows are missing. Take fewer steps.</p>}
            {asTable ? <FlowTable flows={data.flows} /> : <Drawing graph={data} centre={instanceId} />}
          </>
        )}
      </Found>
    </>
  );
}

function FlowTable({ flows }: { flows: FlowState[] }) {
  return (
    <Table label="Flows" columns={["Flow", "Kind", "Status", "Version", "Why"]}>
      {flows.map((each) => (
        <tr key={flowKey(each.flow)}>
          <th scope="row">{each.hidden ? "hidden" : <Link to={`/instances/${each.flow?.instanceId}`}>{each.instanceName}</Link>}</th>
          <td>
            {kindWord(each.instanceKind)}, {each.flow && flowWord(each.flow.flowKind)}
          </td>
          <td>
            <StatusMark status={each.status} />
          </td>
          <td>{String(each.currentVersion?.version ?? 0n)}</td>
          <td>{each.causes.map((cause) => cause.message || causeWord(cause.kind)).join("; ")}</td>
        </tr>
      ))}
    </Table>
  );
}

type FlowNode = Node<{ state: FlowState; centre: boolean; causes: boolean }, "flow">;

function FlowBox({ data }: NodeProps<FlowNode>) {
  const { state, centre, causes } = data;
  return (
    <div className={`flow ${statusClass(state.status)} ${centre ? "centre" : ""} ${causes ? "cause" : ""}`}>
      <Handle type="target" position={Position.Left} isConnectable={false} />
      <strong>{state.hidden ? "hidden" : state.instanceName}</strong>
      <StatusMark status={state.status} />
      <Handle type="source" position={Position.Right} isConnectable={false} />
    </div>
  );
}

const NODE_TYPES = { flow: FlowBox };

/** The flows of which a cause of the flow in the middle begins. */
function causesOf(graph: GetLineageGraphResponse, centre: string): Set<string> {
  const middle = graph.flows.find((each) => each.flow?.instanceId === centre);
  return new Set(middle?.causes.map((each) => flowKey(each.origin ?? each.upstream)) ?? []);
}

function Drawing({ graph, centre }: { graph: GetLineageGraphResponse; centre: string }) {
  const go = useNavigate();
  const [places, setPlaces] = useState<Map<string, { x: number; y: number }>>();
  const [error, setError] = useState<unknown>();
  const shape = graph.flows.map((each) => flowKey(each.flow)).join() + graph.edges.map((each) => flowKey(each.upstream) + flowKey(each.downstream)).join();
  useEffect(() => {
    const elk = new ELK({ workerUrl });
    let gone = false;
    elk
      .layout({
        id: "lineage",
        layoutOptions: { "elk.algorithm": "layered", "elk.direction": "RIGHT", "elk.layered.spacing.nodeNodeBetweenLayers": "60" },
        children: graph.flows.map((each) => ({ id: flowKey(each.flow), width: WIDTH, height: HEIGHT })),
        edges: graph.edges.map((each, number) => ({ id: String(number), sources: [flowKey(each.upstream)], targets: [flowKey(each.downstream)] })),
      })
      .then((laid) => {
        if (!gone) setPlaces(new Map(laid.children?.map((each) => [each.id, { x: each.x ?? 0, y: each.y ?? 0 }])));
      })
      .catch((failed: unknown) => setError(failed));
    return () => {
      gone = true;
      elk.terminateWorker();
    };
    // The places depend on the shape alone: a status that changes moves nothing.
  }, [shape]);
  const nodes = useMemo(() => {
    const causes = causesOf(graph, centre);
    return graph.flows.map((state): FlowNode => {
      const key = flowKey(state.flow);
      const isCentre = state.flow?.instanceId === centre;
      const name = `${state.instanceName} ${Status[state.status]?.toLowerCase()}`;
      return { id: key, type: "flow", ariaLabel: name, width: WIDTH, height: HEIGHT, position: places?.get(key) ?? { x: 0, y: 0 }, data: { state, centre: isCentre, causes: causes.has(key) } };
    });
  }, [graph, centre, places]);
  const lines = useMemo(
    () =>
      graph.edges.map(
        (each): Line => ({
          id: `${flowKey(each.upstream)}-${flowKey(each.downstream)}-${each.role}`,
          source: flowKey(each.upstream),
          target: flowKey(each.downstream),
          label: each.role,
          labelStyle: { fill: "var(--text)" },
          labelBgStyle: { fill: "var(--page)" },
        }),
      ),
    [graph],
  );
  if (error) return <Problem what="The drawing" error={error} />;
  if (!places) return <p role="status">Drawing …</p>;
  return (
    <div className="drawing">
      <ReactFlow
        nodes={nodes}
        edges={lines}
        nodeTypes={NODE_TYPES}
        onNodeClick={(_, node) => !node.data.state.hidden && void go(`/instances/${node.data.state.flow?.instanceId}`)}
        nodesDraggable={false}
        nodesConnectable={false}
        onlyRenderVisibleElements={nodes.length > 200}
        minZoom={0.02}
        fitView
        fitViewOptions={{ maxZoom: 1 }}
        colorMode="system"
        proOptions={{ hideAttribution: true }}
      >
        <Background />
        <Controls showInteractive={false} />
      </ReactFlow>
    </div>
  );
}
