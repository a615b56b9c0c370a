import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { de } from './de';
import { en } from './en';
import { fill, setLanguage, t, type Key, type Message } from './index.svelte';
import { zh } from './zh';

const keys = Object.keys(en) as Key[];
const holes = (message: Message) => {
  const texts = typeof message === 'string' ? [message] : Object.values(message);
  return [...new Set(texts.flatMap((text) => text.match(/\{\w+\}/g) ?? []))].sort();
};

describe.each(Object.entries({ de, zh }))('%s', (_, messages) => {
  it('has the keys of English, in their order', () => {
    expect(Object.keys(messages).filter((key) => !(key in en))).toEqual([]);
    expect(keys.filter((key) => !(key in messages))).toEqual([]);
  });
  it.each(keys)('%s fills the same holes', (key) => {
    // A plural's own number may go unsaid in one of the languages ("Only you").
    const said = (message: Message) => holes(message).filter((hole) => hole !== '{n}' || typeof en[key] === 'string');
    expect(said(messages[key])).toEqual(said(en[key]));
  });
  it('is translated', () => {
    const same = keys.filter((key) => typeof en[key] === 'string' && /[a-z]{4} [a-z]{2}/.test(en[key]) && messages[key] === en[key]);
    expect(same).toEqual([]);
  });
});

it('has no text that nobody shows', () => {
  const sources = (folder: string): string[] =>
    readdirSync(folder).flatMap((name) => {
      const path = join(folder, name);
      if (statSync(path).isDirectory()) return name === 'i18n' ? [] : sources(path);
      return /\.(ts|svelte)$/.test(name) ? [readFileSync(path, 'utf8')] : [];
    });
  const all = sources(join(import.meta.dirname, '..')).join('\n');
  // Keys that are put together, such as `grade.${grade}`.
  const made = [...all.matchAll(/`([a-z_.]*)\$\{[^}]+\}([a-z_.]*)`/g)].map(([, head, tail]) => new RegExp(`^${head}[a-z0-9_]+${tail}$`));
  const unused = keys.filter((key) => !new RegExp(`['"\`]${key.replaceAll('.', '\\.')}['"\`]`).test(all) && !made.some((pattern) => pattern.test(key)));
  expect(unused).toEqual([]);
});

it('chooses the plural', () => {
  expect(fill({ one: 'One', other: '{n} of them' }, { n: 1 }, 'en')).toBe('One');
  expect(fill({ one: 'One', other: '{n} of them' }, { n: 0 }, 'en')).toBe('0 of them');
  expect(fill({ other: '{n} 个' }, { n: 1 }, 'zh')).toBe('1 个');
});

it('leaves alone what it has no value for', () => {
  expect(fill('{a} {b}', { a: '{b}' }, 'en')).toBe('{b} {b}');
});

it('takes the first language of the system that there is', () => {
  setLanguage('system', ['fr-FR', 'de-AT', 'en']);
  expect(t('cancel')).toBe('Abbrechen');
  setLanguage('system', ['C']);
  expect(t('cancel')).toBe('Cancel');
});
