/** A filter by the values of an enum: one that a person chooses, or several that the address bar names. */
import { valuesOf, word } from "./words";

export function Choice(props: {
  title: string;
  type: Record<string, string | number>;
  known: number[];
  onChange: (name: string) => void;
}) {
  const { title, type, known, onChange } = props;
  const name = (value: number) => String(type[value]).toLowerCase();
  return (
    <label>
      {title}
      <select
        value={known.length > 1 ? "several" : known[0] === undefined ? "" : name(known[0])}
        onChange={(event) => onChange(event.target.value)}
      >
        <option value="">any</option>
        {known.length > 1 && (
          <option value="several" disabled>
            {known.map((each) => word(type, each)).join(", ")}
          </option>
        )}
        {valuesOf(type).map((each) => (
          <option key={each} value={name(each)}>
            {word(type, each)}
          </option>
        ))}
      </select>
    </label>
  );
}
