/** Flows as the addresses of this console and keys of maps have them. */
import type { FlowRef } from "../gen/optaic/common/v1/flow_pb";

export const flowKey = (flow: FlowRef | undefined) => (flow ? `${flow.instanceId}/${flow.flowKind}` : "");
