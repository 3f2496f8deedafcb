/** What a part of a page shows while it has nothing else: it loads, it is empty, it failed. */
import { type ReactNode, useEffect } from "react";
import { Link, useRouteError } from "react-router";

import { describeError } from "../api/transport";

export function Loading({ what }: { what: string }) {
  return (
    <p className="quiet" role="status">
      Loading {what} …
    </p>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="quiet">{children}</p>;
}

export function Problem({ what, error, retry }: { what: string; error: unknown; retry?: () => unknown }) {
  const { message, reason } = describeError(error);
  return (
    <div className="problem" role="alert">
      <strong>{what} cannot be shown.</strong> {message} {reason && <code>{reason}</code>}{" "}
      {retry && (
        <button type="button" onClick={() => void retry()}>
          Try again
        </button>
      )}
    </div>
  );
}

/** The page for an address that nothing has, and for a page that broke. */
export function Failure() {
  const error: unknown = useRouteError();
  useEffect(() => {
    document.title = "Not found - OptAIC";
  }, []);
  return (
    <main>
      {error ? <Problem what="This page" error={error} /> : <p>There is no such page.</p>}
      <p>
        <Link to="/">Overview</Link>
      </p>
    </main>
  );
}

/** The frame of a query: one of the three states, or what it found. Data that is shown stays while it is read again. */
export function Found<T>(props: {
  what: string;
  query: { data: T | undefined; error: unknown; refetch: () => unknown };
  children: (data: T) => ReactNode;
}) {
  const { data, error, refetch } = props.query;
  if (data === undefined) {
    return error ? <Problem what={props.what} error={error} retry={refetch} /> : <Loading what={props.what.toLowerCase()} />;
  }
  return (
    <>
      {Boolean(error) && <Problem what={`The newest state of ${props.what.toLowerCase()}`} error={error} retry={refetch} />}
      {props.children(data)}
    </>
  );
}

/** Says which filters of the address bar are none. */
export function Unknown({ filters }: { filters: string[] }) {
  if (!filters.length) return null;
  return (
    <p role="alert" className="problem">
      The address names filters that there are not, and they are left out: {filters.join(", ")}
    </p>
  );
}
