import { expect, it } from 'vitest';
import { many, member } from '../../mock/world';
import { slots } from './colours';
import { sorted, visible } from './roster';

const names = (list: { name: string }[]) => list.map(({ name }) => name);

it('puts this computer first, those who are away last', () => {
  const list = [member(1, 'zoe'), member(0, 'Mira'), member(5, 'Abe', { online: false }), member(3, 'Émile'), member(4, 'adam')];
  expect(names(sorted(list, { key: 'name', reverse: false }, 'en'))).toEqual(['Mira', 'adam', 'Émile', 'zoe', 'Abe']);
  expect(names(sorted(list, { key: 'name', reverse: true }, 'en'))).toEqual(['Mira', 'zoe', 'Émile', 'adam', 'Abe']);
});

it('sorts by ping, with the unknown last either way', () => {
  const unknown = member(4, 'Unknown');
  const list = [member(1, 'Fast'), member(2, 'Slow'), { ...unknown, quality: { ...unknown.quality, rtt_ms: null } }];
  expect(names(sorted(list, { key: 'ping', reverse: false }, 'en'))).toEqual(['Fast', 'Slow', 'Unknown']);
  expect(names(sorted(list, { key: 'ping', reverse: true }, 'en'))).toEqual(['Slow', 'Fast', 'Unknown']);
});

it('sorts numbers in names as numbers', () => {
  const list = [member(1, 'Guest 10'), member(2, 'Guest 9')];
  expect(names(sorted(list, { key: 'name', reverse: false }, 'en'))).toEqual(['Guest 9', 'Guest 10']);
});

it('draws the rows in view and a few more', () => {
  expect(visible(250, 50, 0, 500)).toEqual({ first: 0, end: 14 });
  expect(visible(250, 50, 5000, 500)).toEqual({ first: 96, end: 114 });
  expect(visible(250, 50, 12_000, 500)).toEqual({ first: 236, end: 250 });
  expect(visible(0, 50, 0, 500)).toEqual({ first: 0, end: 0 });
});

it('gives every member a slot that does not depend on the order', () => {
  const list = many(30);
  const first = slots(list);
  expect(new Set(first.values()).size).toBe(30);
  expect(slots([...list].reverse())).toEqual(first);
});
