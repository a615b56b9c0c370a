// Round trips of the past hour, per member. Live ones come with snapshots, older ones on request.
import type { PathKind, Sample } from '../bindings';

/** As long as the engine keeps them: an hour at one a second. */
export const CAPACITY = 3600;

/** One member's round trips, oldest first. */
export class Series {
  at: number[] = [];
  rtt: (number | null)[] = [];
  path: (PathKind | null)[] = [];
  /** Whether the past hour was fetched. */
  loaded = false;

  /** Appends a sample unless it is not newer than the last. Says whether it was. */
  append({ at_ms, rtt_ms, path }: Sample): boolean {
    if (at_ms <= (this.at.at(-1) ?? -Infinity)) return false;
    this.at.push(at_ms);
    this.rtt.push(rtt_ms);
    this.path.push(path);
    // Cut in slices, so that it does not cost a copy per sample.
    if (this.at.length > CAPACITY + 600) this.cut(this.at.length - CAPACITY);
    return true;
  }

  /** Puts older samples before those that are known. */
  prepend(past: readonly Sample[]) {
    const first = this.at[0] ?? Infinity;
    const older = past.filter((sample) => sample.at_ms < first);
    this.at = [...older.map((sample) => sample.at_ms), ...this.at];
    this.rtt = [...older.map((sample) => sample.rtt_ms), ...this.rtt];
    this.path = [...older.map((sample) => sample.path), ...this.path];
  }

  /** The last `count` round trips. */
  tail(count: number): (number | null)[] {
    return this.rtt.slice(-count);
  }

  private cut(count: number) {
    this.at.splice(0, count);
    this.rtt.splice(0, count);
    this.path.splice(0, count);
  }
}

/** Longest time between two measurements that a line bridges, in milliseconds: at rest they come every 15 to 25 s. */
const BRIDGED = 40_000;

/**
 * A window of a series in equal steps: the mean of each step, and the steps in which something was lost. A step that was
 * not measured is `undefined` where the line goes on across it, and `null` where it has a gap.
 */
export interface Buckets {
  mean: (number | null | undefined)[];
  lost: boolean[];
}

/** Puts the samples of `[end - step * count, end)` into `count` steps of `step` milliseconds. */
export function bucket(series: Series, end: number, step: number, count: number): Buckets {
  const start = end - step * count;
  const sum = new Float64Array(count);
  const seen = new Uint32Array(count);
  const lost = new Array<boolean>(count).fill(false);
  for (let index = firstAfter(series.at, start); index < series.at.length; index += 1) {
    const slot = Math.floor(((series.at[index] ?? 0) - start) / step);
    if (slot < 0 || slot >= count) continue;
    const rtt = series.rtt[index] ?? null;
    if (rtt === null) lost[slot] = true;
    else {
      sum[slot] = (sum[slot] ?? 0) + rtt;
      seen[slot] = (seen[slot] ?? 0) + 1;
    }
  }
  const mean = Array.from(sum, (total, slot) => (seen[slot] ? total / seen[slot] : null));
  return { mean: bridged(mean, lost, BRIDGED / step), lost };
}

/** Lets the line go on across at most `most` steps in which at most one packet was lost. */
function bridged(mean: (number | null)[], lost: boolean[], most: number): Buckets['mean'] {
  const line: Buckets['mean'] = [...mean];
  let last = -1;
  let missed = 0;
  mean.forEach((value, slot) => {
    if (lost[slot]) missed += 1;
    if (value === null) return;
    if (last >= 0 && slot - last <= Math.max(most, 1) && missed <= 1) line.fill(undefined, last + 1, slot);
    last = slot;
    missed = 0;
  });
  return line;
}

/** The step nearest to `index` that has a value, as far as the line goes on from there. */
export function nearest(line: ArrayLike<number | null | undefined>, index: number): number | null {
  for (let far = 0; far < line.length; far += 1) {
    const [before, after] = [line[index - far], line[index + far]];
    if (before != null) return before;
    if (after != null) return after;
    if (before === null || after === null) return null;
  }
  return null;
}

/** The first index whose time is not before `time`. */
export function firstAfter(times: readonly number[], time: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((times[middle] ?? 0) < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** All series, by party and member. */
export class SampleLog {
  private series = new Map<string, Series>();

  of(party: string, member: string): Series {
    const key = `${party}/${member}`;
    let series = this.series.get(key);
    if (!series) this.series.set(key, (series = new Series()));
    return series;
  }

  /** Forgets members that are gone. */
  keep(keys: ReadonlySet<string>) {
    for (const key of this.series.keys()) if (!keys.has(key)) this.series.delete(key);
  }
}
