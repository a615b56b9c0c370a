// The latency chart's data and its drawing options for uPlot.
import uPlot from 'uplot';
import type { MemberView, PathEvent } from '../bindings';
import { seriesDash, SERIES } from './colours';
import { bucket, type Buckets, type SampleLog } from './samples';

export type Span = '1m' | '10m' | '1h';
/** Length and step of each span in milliseconds: 60, 300 and 360 steps. */
export const spans: Record<Span, { length: number; step: number }> = {
  '1m': { length: 60_000, step: 1000 },
  '10m': { length: 600_000, step: 2000 },
  '1h': { length: 3_600_000, step: 10_000 },
};
/** As many members as get a line each. Larger parties show a band, and lines only for chosen members. */
export const MAX_LINES = SERIES;

export interface Line {
  member: MemberView;
  slot: number;
  /** How many lines before it have its colour; each gets other dashes. */
  repeat: number;
}

/** What the chart draws: lines, and above `MAX_LINES` members everybody else's band. */
export interface Shown {
  lines: Line[];
  crowd: MemberView[];
}

export interface Frame {
  data: uPlot.AlignedData;
  /** Whether the first two series are the band: the 95th percentile and the median of the crowd. */
  band: boolean;
  /** Per line, the values. */
  values: uPlot.AlignedData[number][];
  /** Per line, the x values (seconds) at which something was lost. */
  lost: number[][];
  /** Per line, the changes of path in the window. */
  changes: PathEvent[][];
}

/** Lines for everybody in a small party; in a large one for the `chosen`, at most `MAX_LINES`, beside a band of all. */
export function subjects(members: readonly MemberView[], slots: Map<string, number>, chosen: ReadonlySet<string>): Shown {
  const others = members.filter((member) => !member.me);
  const measured = others.filter((member) => member.online || member.history.length > 0);
  const large = others.length > MAX_LINES;
  const drawn = large ? measured.filter((member) => chosen.has(member.id)).slice(0, MAX_LINES) : measured;
  const colours = drawn.map((member) => slots.get(member.id) ?? 0);
  const lines = drawn.map((member, index) => {
    const slot = colours[index] ?? 0;
    return { member, slot, repeat: colours.slice(0, index).filter((other) => other % SERIES === slot % SERIES).length };
  });
  return { lines, crowd: large ? measured : [] };
}

/** What the chart shows at `now`, whose step it is aligned with, so that past steps do not change. */
export function frame(party: string, shown: Shown, log: SampleLog, span: Span, now: number): Frame {
  const { length, step } = spans[span];
  const count = length / step;
  const end = Math.ceil(now / step) * step;
  const start = end - length;
  const xs = Array.from({ length: count }, (_, index) => (start + (index + 0.5) * step) / 1000);
  const buckets = (member: MemberView) => bucket(log.of(party, member.id), end, step, count);
  const ys = shown.lines.map(({ member }) => buckets(member));
  const values = ys.map(({ mean }) => mean);
  const band = shown.crowd.length > 0;
  const crowd = band ? spread(shown.crowd.map((member) => buckets(member).mean), count) : null;
  return {
    data: [xs, ...(crowd ? [crowd.high, crowd.median] : []), ...values] as uPlot.AlignedData,
    band,
    values: values as uPlot.AlignedData[number][],
    lost: ys.map(({ lost }) => xs.filter((_, index) => lost[index])),
    changes: shown.lines.map(({ member }) => member.history.filter(({ at }) => at * 1000 > start && at * 1000 <= end)),
  };
}

/** The median and the 95th percentile (nearest rank) of many lines in each step; `null` where nobody was measured. */
export function spread(lines: readonly Buckets['mean'][], count: number) {
  const median: (number | null)[] = [];
  const high: (number | null)[] = [];
  const last: (number | null)[] = lines.map(() => null);
  for (let step = 0; step < count; step += 1) {
    lines.forEach((line, index) => {
      // Where a line goes on without a measurement, its last value counts.
      const value = line[step];
      if (value !== undefined) last[index] = value;
    });
    const sorted = last.filter((value) => value !== null).sort((a, b) => a - b);
    const rank = (share: number) => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? null;
    median.push(rank(0.5));
    high.push(rank(0.95));
  }
  return { median, high };
}

export interface Look {
  colour: (name: string) => string;
  focus: string | null;
  clock: (at: number) => string;
  onhover: (index: number | null) => void;
  current: () => Frame | null;
}

/** Options for a chart of what is `shown`. */
export function options(shown: Shown, size: { width: number; height: number }, look: Look): uPlot.Options {
  const grid = { stroke: look.colour('--line'), width: 1 };
  const axis = { stroke: look.colour('--faint'), grid, ticks: { show: false }, font: '11px "Inter Variable", system-ui' };
  return {
    ...size,
    padding: [10, 28, 0, 0],
    legend: { show: false },
    cursor: {
      y: false,
      points: { size: 7, width: 2 },
      drag: { setScale: false, x: false, y: false },
    },
    scales: {
      x: { time: true },
      y: { range: (_, __, most) => [0, Math.max(40, (most ?? 0) * 1.15)] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 26, space: 90, values: (_, ticks) => ticks.map((at) => look.clock(at * 1000)) },
      { ...axis, size: 44, space: 34, values: (_, ticks) => ticks.map((tick) => `${tick}`) },
    ],
    series: [{}, ...(shown.crowd.length ? bandSeries(look) : []), ...shown.lines.map((line) => stroke(line, look))],
    ...(shown.crowd.length ? { bands: [{ series: [1, 2] as [number, number], fill: `${look.colour('--edge')}3d` }] } : {}),
    hooks: {
      setCursor: [(plot) => look.onhover(plot.cursor.idx ?? null)],
      draw: [(plot) => marks(plot, shown.lines, look)],
    },
  };
}

/** The 95th percentile, which only bounds the band, and the median. */
function bandSeries(look: Look): uPlot.Series[] {
  const base = { spanGaps: false, points: { show: false } };
  return [
    { ...base, label: '95 %', stroke: `${look.colour('--edge')}80`, width: 1 },
    { ...base, label: '50 %', stroke: look.colour('--soft'), width: 2 },
  ];
}

function stroke({ member, slot, repeat }: Line, look: Look): uPlot.Series {
  const dimmed = look.focus !== null && look.focus !== member.id;
  const dash = seriesDash(repeat);
  return {
    label: member.name,
    stroke: look.colour(`--series-${(slot % SERIES) + 1}`),
    width: look.focus === member.id ? 2.5 : 1.75,
    alpha: dimmed ? 0.4 : 1,
    ...(dash ? { dash } : {}),
    spanGaps: false,
    points: { show: false },
  };
}

/** Ticks at the foot where something was lost, and a diamond where the path changed. */
function marks(plot: uPlot, shown: readonly Line[], look: Look) {
  const frame = look.current();
  if (!frame) return;
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  shown.forEach(({ member, slot }, index) => {
    const colour = look.colour(`--series-${(slot % SERIES) + 1}`);
    ctx.save();
    ctx.globalAlpha = look.focus !== null && look.focus !== member.id ? 0.2 : 1;
    ctx.fillStyle = colour;
    for (const at of frame.lost[index] ?? []) {
      ctx.fillRect(plot.valToPos(at, 'x', true) - ratio, bbox.top + bbox.height - 9 * ratio, 2 * ratio, 9 * ratio);
    }
    for (const { at } of frame.changes[index] ?? []) {
      const x = plot.valToPos(at, 'x', true);
      ctx.strokeStyle = colour;
      ctx.lineWidth = ratio;
      ctx.setLineDash([2 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      const radius = 4.5 * ratio;
      const y = bbox.top + radius;
      ctx.moveTo(x, y - radius);
      ctx.lineTo(x + radius, y);
      ctx.lineTo(x, y + radius);
      ctx.lineTo(x - radius, y);
      ctx.fill();
    }
    ctx.restore();
  });
}
