import { describe, expect, it } from 'vitest';
import type { MemberView } from '../bindings';
import { MAX_LINES, spread, subjects } from './chart';

const party = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ id: `m${index}`, me: index === 0, online: true, history: [] }) as unknown as MemberView);
const slots = new Map<string, number>();

describe('what the chart shows', () => {
  it('gives each of up to eight friends a line', () => {
    const shown = subjects(party(MAX_LINES + 1), slots, new Set());
    expect(shown.lines).toHaveLength(MAX_LINES);
    expect(shown.crowd).toHaveLength(0);
  });

  it('draws a band of all and lines of the chosen above that', () => {
    const shown = subjects(party(MAX_LINES + 2), slots, new Set(['m3', 'm7']));
    expect(shown.lines.map(({ member }) => member.id)).toEqual(['m3', 'm7']);
    expect(shown.crowd).toHaveLength(MAX_LINES + 1);
  });
});

describe('the band', () => {
  it('runs from the median to the 95th percentile', () => {
    const lines = Array.from({ length: 100 }, (_, index) => [index + 1]);
    expect(spread(lines, 1)).toEqual({ median: [50], high: [95] });
  });

  it('counts the last value where a line goes on, and nobody where all have a gap', () => {
    expect(spread([[10, undefined, null], [30, 30, null]], 3)).toEqual({ median: [10, 10, null], high: [30, 30, null] });
  });
});
