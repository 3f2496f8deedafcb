/** A question in a dialogue of the browser: it holds the keyboard, Escape says no, and the focus returns. */
import { type ReactNode, useEffect, useRef } from "react";

export function Ask(props: { title: string; yes: string; busy?: boolean; onYes: () => void; onNo: () => void; children: ReactNode }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby="question" onClose={props.onNo}>
      <h2 id="question">{props.title}</h2>
      {props.children}
      <p className="buttons">
        <button type="button" className="main" disabled={props.busy} onClick={props.onYes}>
          {props.yes}
        </button>
        <button type="button" onClick={() => dialog.current?.close()}>
          Cancel
        </button>
      </p>
    </dialog>
  );
}
