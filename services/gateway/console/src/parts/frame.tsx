/** What every page has: where one can go, and whether changes arrive. */
import { useEffect, useRef, useState } from "react";
import { NavLink, Outlet, useLocation } from "react-router";

import { useIsLive } from "../api/live";

const PLACES = [
  { to: "/", name: "Overview", end: true },
  { to: "/instances", name: "Instances", end: false },
  { to: "/runs", name: "Runs", end: false },
];
const PATIENCE_MS = 1500;

export function Frame() {
  const place = useLocation();
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else main.current?.focus();
  }, [place.pathname]);
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header>
        <NavLink to="/" className="brand">
          OptAIC
        </NavLink>
        <nav aria-label="Main">
          {PLACES.map((each) => (
            <NavLink key={each.to} to={each.to} end={each.end}>
              {each.name}
            </NavLink>
          ))}
        </nav>
      </header>
      <Connection />
      <main id="main" ref={main} tabIndex={-1}>
        <Outlet />
      </main>
    </>
  );
}

/** A banner while no changes arrive; when they do again, the watch goes on where it stopped. */
function Connection() {
  const live = useIsLive();
  const [late, setLate] = useState(false);
  useEffect(() => {
    setLate(false);
    if (live) return;
    const clock = setTimeout(() => setLate(true), PATIENCE_MS);
    return () => clearTimeout(clock);
  }, [live]);
  return (
    <div role="status" className={late ? "banner" : "banner hidden"}>
      {late && "No connection to the services: what is shown may be old. Trying again; no change will be missed."}
    </div>
  );
}

/** Set the title of the page. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} - OptAIC`;
  }, [title]);
}
