/** The statuses of instances as they change, for the components of this page. */
import { fromBinary } from "@bufbuild/protobuf";
import type { QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";

import { type InstanceStatus, InstanceStatusSchema } from "../gen/optaic/status/v1/status_pb";
import { type Told, watchForEver } from "./watch";

interface Change {
  status: InstanceStatus;
  deleted: boolean;
}

const changes = new Map<string, Change>();
const listeners = new Set<() => void>();
let revision = 0; // counts what this page has heard
let live: boolean | undefined; // undefined: not yet known
let pending: ReturnType<typeof setTimeout> | undefined;
const REREAD_MS = 250;

/** Follow the changes; `queries` reads again what they may concern. */
export function follow(queries: QueryClient): void {
  const reread = () => {
    pending ??= setTimeout(() => {
      pending = undefined;
      void queries.invalidateQueries();
    }, REREAD_MS);
  };
  const hear = (told: Told) => {
    if (told.kind === "state") {
      const began = told.live && live !== true;
      live = told.live;
      if (began) reread();
    } else if (told.kind === "reset") {
      changes.clear();
      reread();
    } else {
      const status = fromBinary(InstanceStatusSchema, told.status);
      const before = changes.get(status.instanceId);
      if (before && before.status.revision > status.revision) return;
      changes.set(status.instanceId, { status, deleted: told.deleted });
      reread();
    }
    revision += 1;
    for (const each of listeners) each();
  };
  if (typeof SharedWorker === "undefined") {
    void watchForEver(location.origin, hear);
    return;
  }
  const worker = new SharedWorker(new URL("./watch.worker.ts", import.meta.url), { type: "module", name: "optaic" });
  worker.port.onmessage = (event: MessageEvent<Told>) => hear(event.data);
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Whether changes arrive: undefined before the first answer. */
export function useIsLive(): boolean | undefined {
  return useSyncExternalStore(subscribe, () => live);
}

/** The statuses that were read, each replaced by a newer one that has come since. Rows keep their places. */
export function useNewest(read: InstanceStatus[]): InstanceStatus[] {
  useSyncExternalStore(subscribe, () => revision);
  return read.flatMap((each) => {
    const change = changes.get(each.instanceId);
    if (!change || change.status.revision <= each.revision) return [each];
    return change.deleted ? [] : [change.status];
  });
}
