// The latency chart's data and its drawing options for uPlot.
import uPlot from 'uplot';
import type { MemberView, PathEvent } from '../bindings';
import { seriesDash, SERIES } from './colours';
import { bucket, type SampleLog } from './samples';

export type Span = '1m' | '10m' | '1h';
/** Length and step of each span in milliseconds: 60, 300 and 360 steps. */
export const spans: Record<Span, { length: number; step: number }> = {
  '1m': { length: 60_000, step: 1000 },
  '10m': { length: 600_000, step: 2000 },
  '1h': { length: 3_600_000, step: 10_000 },
};
/** As many lines as can be told apart. */
export const MOST = SERIES * 3;

export interface Line {
  member: MemberView;
  slot: number;
}

export interface Frame {
  data: uPlot.AlignedData;
  /** Per line, the x values (seconds) at which something was lost. */
  lost: number[][];
  /** Per line, the changes of path in the window. */
  changes: PathEvent[][];
}

/** The lines worth drawing: connected members, at most `MOST`, the focused one among them. */
export function lines(members: readonly MemberView[], slots: Map<string, number>, focus: string | null): Line[] {
  const all = members.filter((member) => !member.me && (member.online || member.history.length > 0));
  const chosen = all.slice(0, MOST);
  const focused = all.find((member) => member.id === focus);
  if (focused && !chosen.includes(focused)) chosen[chosen.length - 1] = focused;
  return chosen.map((member) => ({ member, slot: slots.get(member.id) ?? 0 }));
}

/** What the chart shows at `now`, whose step it is aligned with, so that past steps do not change. */
export function frame(party: string, shown: readonly Line[], log: SampleLog, span: Span, now: number): Frame {
  const { length, step } = spans[span];
  const count = length / step;
  const end = Math.ceil(now / step) * step;
  const start = end - length;
  const xs = Array.from({ length: count }, (_, index) => (start + (index + 0.5) * step) / 1000);
  const ys = shown.map(({ member }) => bucket(log.of(party, member.id), end, step, count));
  return {
    data: [xs, ...ys.map(({ mean }) => mean)] as uPlot.AlignedData,
    lost: ys.map(({ lost }) => xs.filter((_, index) => lost[index])),
    changes: shown.map(({ member }) => member.history.filter(({ at }) => at * 1000 > start && at * 1000 <= end)),
  };
}

export interface Look {
  colour: (name: string) => string;
  focus: string | null;
  clock: (at: number) => string;
  onhover: (index: number | null) => void;
  current: () => Frame | null;
}

/** Options for a chart of `shown` lines. */
export function options(shown: readonly Line[], size: { width: number; height: number }, look: Look): uPlot.Options {
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
    series: [{}, ...shown.map((line) => stroke(line, look))],
    hooks: {
      setCursor: [(plot) => look.onhover(plot.cursor.idx ?? null)],
      draw: [(plot) => marks(plot, shown, look)],
    },
  };
}

function stroke({ member, slot }: Line, look: Look): uPlot.Series {
  const dimmed = look.focus !== null && look.focus !== member.id;
  const dash = seriesDash(slot);
  return {
    label: member.name,
    stroke: look.colour(`--series-${(slot % SERIES) + 1}`),
    width: look.focus === member.id ? 2.5 : 1.75,
    alpha: dimmed ? 0.22 : 1,
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
