// One colour per member, the same for its avatar and its line in the chart.
export const SERIES = 8;
/** Dashes for the second and third round of colours, so that lines stay apart without them. */
export const DASHES: (number[] | undefined)[] = [undefined, [6, 4], [2, 3]];

/** Slots by member or party: distinct for as many as there are colours and dashes, in order of their ids. */
export function slots(members: readonly { id: string }[]): Map<string, number> {
  const ids = members.map((member) => member.id).sort();
  return new Map(ids.map((id, index) => [id, index]));
}

/** The CSS colour of a slot. */
export const seriesColour = (slot: number) => `var(--series-${(slot % SERIES) + 1})`;

/** The dash of a slot's line. */
export const seriesDash = (slot: number) => DASHES[Math.floor(slot / SERIES) % DASHES.length];
