/** "Copy as": the same by the command line or in Python. */
import { useState } from "react";

export function CopyAs({ command, python }: { command: string; python: string }) {
  const [copied, setCopied] = useState("");
  const copy = async (name: string, text: string) => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(`${name} copied`);
    } catch {
      setCopied(text); // the browser forbids it: show what could not be copied
    }
  };
  return (
    <span className="copy">
      <button type="button" title={command} onClick={() => void copy("Command", command)}>
        Copy as CLI command
      </button>
      <button type="button" title={python} onClick={() => void copy("Python", python)}>
        Copy as Python
      </button>
      <span role="status">{copied}</span>
    </span>
  );
}

/** A word for a shell: quoted where it must be. */
export function quoted(text: string): string {
  return /^[\w./:@-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
