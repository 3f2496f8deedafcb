/** Words of the contracts as people read them. */
import { CauseKind } from "../gen/optaic/lineage/v1/lineage_pb";
import { FlowKind, Status } from "../gen/optaic/common/v1/flow_pb";
import { InstanceKind } from "../gen/optaic/instance/v1/instance_pb";

type Enum = Record<string, string | number>;

/** The name of a value without what its type says already: `NOT_INITIALIZED` is "not initialized". */
export function word(type: Enum, value: number): string {
  return (type[value] as string | undefined)?.toLowerCase().replaceAll("_", " ") ?? `unknown (${value})`;
}

/** All values of an enum but "unspecified". */
export function valuesOf(type: Enum): number[] {
  return Object.values(type).filter((each): each is number => typeof each === "number" && each !== 0);
}

export const statusWord = (value: Status) => word(Status, value);
export const kindWord = (value: InstanceKind) => word(InstanceKind, value);
export const flowWord = (value: FlowKind) => word(FlowKind, value);
export const causeWord = (value: CauseKind) => word(CauseKind, value);
