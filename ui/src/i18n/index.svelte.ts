// Strings of the interface: one file per language, the English one is the reference.
import { kept } from '../lib/kept';
import { de } from './de';
import { en } from './en';
import { zh } from './zh';

/** A text, or its forms by the language's plural rules, chosen by the value `n`. */
export type Message = string | { one?: string; other: string };
export type Key = keyof typeof en;
export type Messages = Record<Key, Message>;
export type Locale = 'en' | 'de' | 'zh';
export type Values = Record<string, string | number>;

const messages: Record<Locale, Messages> = { en, de, zh };
/** What each language calls itself. */
export const locales: Record<Locale, string> = { en: 'English', de: 'Deutsch', zh: '简体中文' };

const current = $state<{ locale: Locale }>({ locale: 'en' });

/** The locale in use. */
export const locale = () => current.locale;

/** Switches the language; `system` takes the first of the system's languages that there is. */
export function setLanguage(wanted: string, system: readonly string[] = globalThis.navigator?.languages ?? []) {
  const known = [wanted, ...(wanted === 'system' ? system : [])].map((tag) => tag.slice(0, 2));
  current.locale = known.find((tag): tag is Locale => tag in messages) ?? 'en';
  if (typeof document !== 'undefined') document.documentElement.lang = current.locale;
}

/** The text of `key` in the language in use, with `{name}` replaced by `values.name`. */
export function t(key: Key, values: Values = {}): string {
  return fill(messages[current.locale][key] ?? en[key], values, current.locale);
}

const plurals = kept((locale: string) => new Intl.PluralRules(locale));

/** A message with its values put in. */
export function fill(message: Message, values: Values, locale: string): string {
  let text = typeof message === 'string' ? message : message.other;
  if (typeof message !== 'string' && message.one && plurals(locale).select(Number(values.n)) === 'one') {
    text = message.one;
  }
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}
