// Numbers, sizes and times as people read them, in the language in use.
import { locale, t } from '../i18n/index.svelte';
import { kept } from './kept';

/** The locale in use with the system's region, which knows whether hours go to 12 or 24. */
function region(): string {
  const tags = typeof navigator === 'undefined' ? [] : navigator.languages;
  return tags.find((tag) => tag.slice(0, 2) === locale()) ?? locale();
}

const numbers = kept(
  (language: string, digits: number) =>
    new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: digits }),
);
const number = (value: number, digits = 0) => numbers(locale(), digits).format(value);

/** Shown where a value is not known. */
export const unknown = '–';

/** Milliseconds without unit: one decimal below ten. */
export function millis(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return unknown;
  return number(value, value < 9.95 ? 1 : 0);
}

/** Milliseconds with unit. */
export const ms = (value: number | null | undefined) => {
  const text = millis(value);
  return text === unknown ? text : `${text} ms`;
};

/** A share from 0 to 1 as a percentage. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined) return unknown;
  const value = share * 100;
  return `${number(value, value > 0 && value < 9.95 ? 1 : 0)} %`;
}

const units = ['B', 'KB', 'MB', 'GB', 'TB'];

/** Bytes in the largest unit that keeps the number above one. */
export function bytes(value: number): string {
  let size = Math.max(0, value);
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${number(size, unit > 0 && size < 9.95 ? 1 : 0)} ${units[unit]}`;
}

/** Bytes per second. */
export const rate = (value: number) => `${bytes(value)}/s`;

/** A count with the language's separators. */
export const count = (value: number) => number(value);

/** A span in its one or two largest units. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts: [number, 'time.d' | 'time.h' | 'time.min' | 'time.s'][] = [
    [Math.floor(whole / 86_400), 'time.d'],
    [Math.floor(whole / 3600) % 24, 'time.h'],
    [Math.floor(whole / 60) % 60, 'time.min'],
    [whole % 60, 'time.s'],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first < 0) return t('time.s', { n: 0 });
  return parts
    .slice(first, first + (first === 2 && whole >= 600 ? 1 : 2))
    .filter(([amount]) => amount > 0)
    .map(([amount, key]) => t(key, { n: amount }))
    .join(' ');
}

const hour = { hour: 'numeric', minute: '2-digit' } as const;
const styles = {
  time: hour,
  clock: { ...hour, second: '2-digit' },
  weekday: { ...hour, weekday: 'long' },
  day: { ...hour, day: 'numeric', month: 'long' },
} as const;
const dates = kept((place: string, style: keyof typeof styles) => new Intl.DateTimeFormat(place, styles[style]));

/** A moment (milliseconds since 1970) with its day, unless that is today. */
export function moment(at: number, now: number): string {
  const today = new Date(at).toDateString() === new Date(now).toDateString();
  const near = Math.abs(at - now) < 6 * 86_400_000;
  return dates(region(), today ? 'time' : near ? 'weekday' : 'day').format(at);
}

/** The time of day with seconds. */
export const clock = (at: number) => dates(region(), 'clock').format(at);

/** The time of day. */
export const time = (at: number) => dates(region(), 'time').format(at);

/** Up to two letters for an avatar. */
export function initials(name: string): string {
  const all = name.trim().split(/[\s._-]+/u).filter(Boolean);
  const spoken = all.map((word) => word.replace(/^[^\p{L}\p{N}]+/u, '')).filter(Boolean);
  const words = spoken.length > 0 ? spoken : all;
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  const first = letters.map((word) => [...(word ?? '?')][0] ?? '?').join('');
  return first.toLocaleUpperCase();
}
