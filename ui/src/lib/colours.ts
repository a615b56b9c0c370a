// One colour per member, the same for its avatar and its line in the chart.
import type { MemberView } from '../bindings';

export const SERIES = 8;
/** Dashes for the second and third round of colours, so that lines stay apart without them. */
export const DASHES: (number[] | undefined)[] = [undefined, [6, 4], [2, 3]];

/** A number that stays the same for a text. */
export function hash(text: string): number {
  let value = 2_166_136_261;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 16_777_619);
  }
  return value >>> 0;
}

/** Slots by member: distinct for as many members as there are colours and dashes, in order of their ids. */
export function slots(members: readonly MemberView[]): Map<string, number> {
  const ids = members.map((member) => member.id).sort();
  return new Map(ids.map((id, index) => [id, index]));
}

/** The CSS colour of a slot. */
export const seriesColour = (slot: number) => `var(--series-${(slot % SERIES) + 1})`;

/** The dash of a slot's line. */
export const seriesDash = (slot: number) => DASHES[Math.floor(slot / SERIES) % DASHES.length];
