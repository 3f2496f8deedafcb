import { TransportProvider } from "@connectrpc/connect-query";
import { QueryClient, QueryClientProvider, keepPreviousData } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { RouterProvider, createBrowserRouter } from "react-router";

import { follow } from "./api/live";
import { transport } from "./api/transport";
import { Frame } from "./parts/frame";
import { Failure } from "./parts/states";
import { InstanceScreen } from "./screens/instance";
import { Instances } from "./screens/instances";
import { Overview } from "./screens/overview";
import { RefreshScreen } from "./screens/refresh";
import { RunScreen } from "./screens/run";
import { Runs } from "./screens/runs";
import "./style.css";

const queries = new QueryClient({
  defaultOptions: { queries: { retry: 1, placeholderData: keepPreviousData, refetchOnWindowFocus: false } },
});
follow(queries);

const router = createBrowserRouter(
  [
    {
      Component: Frame,
      ErrorBoundary: Failure,
      children: [
        { index: true, Component: Overview },
        { path: "instances", Component: Instances },
        { path: "instances/:id", Component: InstanceScreen },
        // What draws graphs is large, and few pages need it.
        { path: "lineage", lazy: async () => ({ Component: (await import("./screens/lineage")).Lineage }) },
        { path: "runs", Component: Runs },
        { path: "runs/:id", Component: RunScreen },
        { path: "refreshes/:id", Component: RefreshScreen },
        { path: "*", Component: Failure },
      ],
    },
  ],
  { basename: "/console" },
);

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <TransportProvider transport={transport}>
        <QueryClientProvider client={queries}>
          <RouterProvider router={router} />
        </QueryClientProvider>
      </TransportProvider>
    </StrictMode>,
  );
}
