// Order of the roster, and which of its rows are worth drawing.
import type { MemberView } from '../bindings';
import { kept } from './kept';

export type SortKey = 'name' | 'path' | 'network' | 'ping' | 'jitter' | 'loss' | 'quality' | 'traffic';
export interface Sort {
  key: SortKey;
  /** Whether the natural order of the column is turned round. */
  reverse: boolean;
}

const paths = ['lan', 'direct_v6', 'mapped', 'direct', 'member_relay', 'relay', 'overlay'];
const badges = ['open', 'full_cone', 'restricted', 'port_restricted', 'symmetric', 'udp_blocked'];
const last = Number.POSITIVE_INFINITY;

/** What a column sorts by; smaller comes first, unknown last. */
const value: Record<Exclude<SortKey, 'name'>, (member: MemberView) => number> = {
  path: (member) => (member.path ? paths.indexOf(member.path.kind) : last),
  network: (member) => (member.badge ? badges.indexOf(member.badge) : last),
  ping: (member) => member.quality.rtt_ms ?? last,
  jitter: (member) => member.quality.jitter_ms ?? last,
  loss: (member) => member.quality.loss ?? last,
  quality: (member) => (member.quality.score === null ? last : -member.quality.score),
  traffic: (member) => -(member.traffic.receiving + member.traffic.sending),
};

const collator = kept((locale: string) => new Intl.Collator(locale, { numeric: true, sensitivity: 'base' }));

/** Members in order: this computer, those online, the others; within these by the column, then by name. */
export function sorted(members: readonly MemberView[], { key, reverse }: Sort, locale: string): MemberView[] {
  const names = collator(locale);
  const turn = reverse ? -1 : 1;
  const rank = (member: MemberView) => (member.me ? 0 : member.online ? 1 : 2);
  return [...members].sort((a, b) => {
    if (rank(a) !== rank(b)) return rank(a) - rank(b);
    const byName = names.compare(a.name, b.name) || (a.id < b.id ? -1 : 1);
    if (key === 'name') return turn * byName;
    const [left, right] = [value[key](a), value[key](b)];
    if (left === right) return byName;
    if (left === last || right === last) return left === last ? 1 : -1;
    return turn * (left - right);
  });
}

/** Which rows of `count` to draw, with a few beyond the edges. */
export function visible(count: number, row: number, top: number, height: number, beyond = 4) {
  const first = Math.max(0, Math.floor(top / row) - beyond);
  return { first, end: Math.min(count, Math.ceil((top + height) / row) + beyond) };
}
