import { describe, expect, it } from 'vitest';
import { bucket, CAPACITY, firstAfter, nearest, SampleLog, Series } from './samples';

const sample = (at_ms: number, rtt_ms: number | null = 20) => ({ at_ms, rtt_ms, path: 'direct' as const });

describe('a series', () => {
  it('takes only what is newer', () => {
    const series = new Series();
    expect(series.append(sample(1000))).toBe(true);
    expect(series.append(sample(1000))).toBe(false);
    expect(series.append(sample(900))).toBe(false);
    expect(series.at).toEqual([1000]);
  });

  it('puts the past before what is known, without doubles', () => {
    const series = new Series();
    series.append(sample(3000, 3));
    series.append(sample(4000, 4));
    series.prepend([sample(1000, 1), sample(2000, 2), sample(3000, 99), sample(5000, 99)]);
    expect(series.rtt).toEqual([1, 2, 3, 4]);
  });

  it('stays within an hour', () => {
    const series = new Series();
    for (let at = 0; at < 3 * CAPACITY; at += 1) series.append(sample(at * 1000));
    expect(series.at.length).toBeGreaterThanOrEqual(CAPACITY);
    expect(series.at.length).toBeLessThanOrEqual(CAPACITY + 600);
    expect(series.at.at(-1)).toBe((3 * CAPACITY - 1) * 1000);
    expect(series.rtt.length).toBe(series.at.length);
    expect(series.path.length).toBe(series.at.length);
  });
});

describe('buckets', () => {
  it('hold the mean, gaps and losses of their step', () => {
    const series = new Series();
    for (const one of [sample(0, 10), sample(1000, 20), sample(2000, null), sample(6000, 7)]) series.append(one);
    expect(bucket(series, 8000, 2000, 4)).toEqual({ mean: [15, undefined, undefined, 7], lost: [false, true, false, false] });
  });

  it('go on across what was not measured, but not across an outage or a long silence', () => {
    const series = new Series();
    const samples = [sample(0, 10), sample(15_000, 20), sample(20_000, null), sample(25_000, null), sample(30_000, 30), sample(75_000, 40)];
    for (const one of samples) series.append(one);
    const [a, b, c, d] = [Array(14).fill(undefined), Array(14).fill(null), Array(44).fill(null), Array(4).fill(null)];
    expect(bucket(series, 80_000, 1000, 80).mean).toEqual([10, ...a, 20, ...b, 30, ...c, 40, ...d]);
  });

  it('leave out what is older or newer', () => {
    const series = new Series();
    for (const one of [sample(0, 10), sample(5000, 20), sample(9000, 30)]) series.append(one);
    expect(bucket(series, 8000, 1000, 4).mean).toEqual([null, 20, null, null]);
  });
});

it('reads the nearest value of a line, and none in a gap', () => {
  const line = [10, undefined, undefined, 20, null, null, 30];
  expect([0, 1, 2, 3, 4, 5, 6].map((index) => nearest(line, index))).toEqual([10, 10, 20, 20, null, null, 30]);
});

it('finds the first of a time', () => {
  expect([0, 5, 10, 15, 16].map((time) => firstAfter([5, 10, 15], time))).toEqual([0, 0, 1, 2, 3]);
});

it('forgets members that are gone', () => {
  const log = new SampleLog();
  const kept = log.of('p', 'a');
  const gone = log.of('p', 'b');
  log.keep(new Set(['p/a']));
  expect(log.of('p', 'a')).toBe(kept);
  expect(log.of('p', 'b')).not.toBe(gone);
});
