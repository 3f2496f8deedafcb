/** A status by colour and by shape, so that neither is needed alone. */
import { Status } from "../gen/optaic/common/v1/flow_pb";
import { statusWord } from "./words";

const SHAPES: Record<number, string> = {
  [Status.READY]: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13z",
  [Status.STALE]: "M8 1.5L15 14.5H1z",
  [Status.ERROR]: "M5 1.5h6l3.5 3.5v6L11 14.5H5L1.5 11V5z",
  [Status.RUNNING]: "M3 1.5L14 8L3 14.5z",
  [Status.NOT_INITIALIZED]: "M2.5 2.5h11v11h-11zM4.5 4.5v7h7v-7z",
};

export function statusClass(status: Status): string {
  return `status-${statusWord(status).replaceAll(" ", "-")}`;
}

export function StatusMark({ status }: { status: Status }) {
  return (
    <span className={`status ${statusClass(status)}`}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path fillRule="evenodd" d={SHAPES[status] ?? "M2 7h12v2H2z"} />
      </svg>
      {statusWord(status)}
    </span>
  );
}
