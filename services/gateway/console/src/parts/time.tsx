/** Moments: how long ago, with the exact time in local time and UTC on hover. */
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { useEffect, useState } from "react";

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "always", style: "short" });

/** "5 min. ago"; "in 2 hr.". */
export function since(moment: Date, now: Date): string {
  const seconds = Math.round((moment.getTime() - now.getTime()) / 1000);
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
  return relative.format(Math.trunc(seconds / size), unit);
}

/** "1 h 05 min", "3.2 s". */
export function duration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export function exact(moment: Date): string {
  return `${moment.toLocaleString()} (${moment.toISOString()})`;
}

export function Since({ time }: { time: Timestamp | undefined }) {
  const [now, setNow] = useState(() => new Date());
  useEffect(() => {
    const clock = setInterval(() => setNow(new Date()), 10_000);
    return () => clearInterval(clock);
  }, []);
  if (!time) return <>-</>;
  const moment = timestampDate(time);
  return (
    <time dateTime={moment.toISOString()} title={exact(moment)}>
      {since(moment, moment > now ? new Date() : now)}
    </time>
  );
}
