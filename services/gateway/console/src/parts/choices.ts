/** The values of an enum that the address bar names, and what it names that there is not. */
export function chosen(type: Record<string, string | number>, given: string[]): { known: number[]; unknown: string[] } {
  const known: number[] = [];
  const unknown: string[] = [];
  for (const each of given) {
    const value = type[each.toUpperCase().replaceAll(" ", "_")];
    if (typeof value === "number" && value !== 0) known.push(value);
    else unknown.push(each);
  }
  return { known, unknown };
}
