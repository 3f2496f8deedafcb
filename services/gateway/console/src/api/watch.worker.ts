/** The watch that all pages of a browser share: over HTTP/1.1 a stream for each page would leave no connection for calls. */
import { type Told, watchForEver } from "./watch";

// The types of pages and of shared workers exclude each other, so what is used of the scope is declared here.
const scope = self as unknown as { onconnect: (event: MessageEvent) => void; location: Location };
// A port cannot say that its page is gone, so the list holds a page weakly: what nobody holds is not told.
const ports = new Set<WeakRef<MessagePort>>();
let live = false;

scope.onconnect = (event) => {
  const port = event.ports[0];
  if (!port) return;
  ports.add(new WeakRef(port));
  port.start();
  port.postMessage({ kind: "state", live } satisfies Told);
};

void watchForEver(scope.location.origin, (told) => {
  if (told.kind === "state") {
    if (told.live === live) return;
    live = told.live;
  }
  for (const each of ports) {
    const port = each.deref();
    if (port) port.postMessage(told);
    else ports.delete(each);
  }
});
