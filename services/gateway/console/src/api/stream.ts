/** A stream that a component reads as long as it is shown. */
import { useEffect, useRef, useState } from "react";

const AGAIN_MS = 1000;

/** Read until the stream ends by itself; after an interruption call `read` again. Return the error of the last try. */
export function useStream(key: string, read: (signal: AbortSignal) => Promise<void>): unknown {
  const [error, setError] = useState<unknown>();
  const newest = useRef(read);
  newest.current = read;
  useEffect(() => {
    const end = new AbortController();
    const go = async () => {
      while (!end.signal.aborted) {
        try {
          await newest.current(end.signal);
          setError(undefined);
          return;
        } catch (failed) {
          if (end.signal.aborted) return;
          setError(failed);
        }
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    };
    void go();
    return () => end.abort();
  }, [key]);
  return error;
}
