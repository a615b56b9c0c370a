// The script of the server's join page, against the table that the app's reader is tested with.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const crates = join(import.meta.dirname, '../../../crates');
const page = readFileSync(join(crates, 'app/server/src/http/join.html'), 'utf8');
const script = page.match(/<script>([\s\S]*)<\/script>/)?.[1] ?? '';

interface Table {
  values: Record<'code' | 'other' | 'newer', string>;
  hrefs: { why: string; text: string; outcome: string }[];
}
const { values, hrefs } = JSON.parse(readFileSync(join(crates, 'core/wire/tests/invites.json'), 'utf8')) as Table;
const named: Record<string, string> = {
  ...values,
  web: `https://play.example.org/join#${values.code}`,
  app: `partyline://join/${values.code}`,
};

/** Replaces `{web}`, `{code[3:-1]}`, `{app|uri}` and the like. */
function expand(text: string): string {
  return text.replace(/\{(web|app|code|other|newer)(?:\[(-?\d*)(:?)(-?\d*)\])?((?:\|\w+)*)\}/g, (_, name, from, colon, to, words) => {
    const value = named[name as string] ?? '';
    const number = (digits: string | undefined, other: number) => (digits ? Number(digits) : other);
    const start = number(from, 0);
    const part = from === undefined ? value : colon ? value.slice(start, number(to, value.length)) : (value.at(start) ?? '');
    return (words as string).split('|').filter(Boolean).reduce(modified, part);
  });
}

function modified(text: string, word: string): string {
  const escape = (c: string) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`;
  switch (word) {
    case 'uri': return text.replace(/[^0-9A-Za-z]/g, escape);
    case 'hex': return text.replace(/[^]/g, escape);
    case 'lower': return text.toLowerCase();
    case 'other': return text === 'z' ? 'y' : 'z';
    default: throw new Error(`modifier ${word}`);
  }
}

interface Element {
  hidden?: boolean;
  href?: string;
  textContent?: string;
  click?: () => unknown;
  addEventListener: (name: string, act: () => unknown) => void;
}

/** Opens the page at an address. */
function open(href: string) {
  const elements: Record<string, Element> = {};
  const element = (id: string) => {
    const made: Element = { addEventListener: (_, act) => (made.click = act) };
    return (elements[id] ??= made);
  };
  const copied: string[] = [];
  const run = new Function('document', 'location', 'navigator', 'addEventListener', `${script}; return read;`);
  const read = run(
    { getElementById: element },
    { href, origin: new URL(href).origin },
    { clipboard: { writeText: (text: string) => copied.push(text) } },
    () => {},
  ) as (address: string) => { outcome: string; code?: string };
  return { elements, copied, read };
}

describe('the join page', () => {
  const { read } = open('https://play.example.org/join');

  it.each(hrefs)('reads an address: $why', ({ text, outcome }) => {
    const found = read(expand(text));
    expect(found.outcome).toBe(outcome);
    if (outcome === 'whole') expect(found.code).toBe(values.code);
  });

  it('hands the whole code to the app, and copies a clean link', () => {
    const { elements, copied } = open(`https://play.example.org/join?fbclid=x%23${values.code}).`);
    expect(elements.open?.href).toBe(`partyline://join/${values.code}`);
    expect([elements.invited?.hidden, elements.broken?.hidden]).toEqual([false, true]);
    void elements.copy?.click?.();
    expect(copied).toEqual([named.web]);
  });

  it('says what is wrong', () => {
    const { elements } = open(`https://play.example.org/join#${values.code.slice(0, 90)}`);
    expect([elements.invited?.hidden, elements.broken?.hidden]).toEqual([true, false]);
    expect(elements.reason?.textContent).toContain('The end of the invite is missing.');
  });
});
