// Limits of the engine, checked here too so that people learn of them while they type.
import { t } from '../i18n/index.svelte';

/** What is wrong with a name of 1 to `most` characters, or null. */
export function nameProblem(name: string, most: number): string | null {
  const text = name.trim();
  if (text === '') return t('limit.empty');
  if ([...text].length > most) return t('limit.long', { n: most });
  // Whether a joiner changes what is drawn takes tables that only the engine has; without a letter or emoji before it, none does.
  const effect = /([\p{L}\p{M}\p{Extended_Pictographic}\p{Emoji_Modifier}])[\u200c\u200d]/gu;
  const hidden = text.replace(effect, (pair, before: string) => (/[a-z]/i.test(before) ? pair : before));
  if (/[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}]/u.test(hidden)) return t('limit.invisible');
  return null;
}

/** What is wrong with a private IPv4 range of prefix 16 to 28, or null. */
export function rangeProblem(range: string): string | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(range.trim());
  if (!match) return t('range.shape');
  const [a = 0, b = 0, c = 0, d = 0, prefix = 0] = match.slice(1).map(Number);
  if ([a, b, c, d].some((part) => part > 255) || prefix < 16 || prefix > 28) return t('range.shape');
  const own = a === 10 || (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168);
  return own ? null : t('range.private');
}

/** What is wrong with a server's URL, or null. */
export function serverProblem(url: string): string | null {
  try {
    const { protocol, hostname } = new URL(url.trim());
    return /^wss?:$/.test(protocol) && hostname ? null : t('servers.shape');
  } catch {
    return t('servers.shape');
  }
}

/** What is wrong with a relay's URL, or null. */
export const relayProblem = (url: string) =>
  /^turns?:[^\s/?]+(\?transport=(udp|tcp))?$/.test(url.trim()) ? null : t('relays.shape');
