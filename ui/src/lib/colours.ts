// One colour per member, the same for its avatar and its line in the chart.
export const SERIES = 8;
/** Dashes of the first, second and third line of one colour. */
export const DASHES: (number[] | undefined)[] = [undefined, [6, 4], [2, 3]];

/** Slots by member or party: distinct for as many as there are colours and dashes, in order of their ids. */
export function slots(members: readonly { id: string }[]): Map<string, number> {
  const ids = members.map((member) => member.id).sort();
  return new Map(ids.map((id, index) => [id, index]));
}

/** The CSS colour of a slot. */
export const seriesColour = (slot: number) => `var(--series-${(slot % SERIES) + 1})`;

/** The dashes of a line, by how many lines before it have its colour. */
export const seriesDash = (repeat: number) => DASHES[repeat % DASHES.length];
