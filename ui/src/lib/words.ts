// The engine's words as keys of texts, tones and icons.
import type { AppError, Badge, Grade, MemberView, Method, PartyView, PathKind, PathView } from '../bindings';
import { locale, t, type Key } from '../i18n/index.svelte';

export type Tone = 'good' | 'fair' | 'poor' | 'cool' | 'plum' | 'quiet' | 'accent';

export const gradeTone: Record<Grade, Tone> = { excellent: 'good', good: 'good', fair: 'fair', poor: 'poor' };
export const badgeTone: Record<Badge, Tone> = {
  open: 'good',
  full_cone: 'good',
  restricted: 'good',
  port_restricted: 'cool',
  symmetric: 'fair',
  udp_blocked: 'poor',
};
export const pathTone: Record<PathKind, Tone> = {
  lan: 'accent',
  direct: 'good',
  direct_v6: 'good',
  mapped: 'good',
  member_relay: 'plum',
  relay: 'fair',
  overlay: 'fair',
};

export const gradeWord = (grade: Grade) => t(`grade.${grade}`);
export const badgeWord = (badge: Badge) => t(`badge.${badge}`);
export const methodWord = (method: Method) => t(`method.${method}`);

/** The path in two or three words, with the relay or the member that carries it. */
export function pathWord(path: PathView, party: PartyView): string {
  if (path.kind === 'relay') return t('path.relay', { relay: relayName(path) });
  if (path.kind === 'member_relay') return t('path.member_relay', { member: carrier(path, party) });
  return t(`path.${path.kind}`);
}

/** The path as a sentence. */
export function pathSentence(path: PathView, party: PartyView): string {
  const values = { relay: relayName(path), member: carrier(path, party) };
  return t(`path.${path.kind}.sentence`, values).trim();
}

const relayName = (path: PathView) => path.relay ?? '';
const carrier = (path: PathView, party: PartyView) =>
  party.members.find((member) => member.id === path.via)?.name ?? t('path.someone');

/** What goes wrong, in the language in use. The engine's own words are English and say more, so English keeps them. */
export function errorText(error: AppError): { message: string; hint: string } {
  if (locale() === 'en') return error;
  const known = `error.${error.code}` as Key;
  const [message, hint] = t(known).split(' | ');
  return { message: message ?? error.message, hint: hint ?? error.hint };
}

/** How a member is there, in a word. */
export function presence(member: MemberView): 'me' | 'connected' | 'connecting' | 'offline' {
  if (member.me) return 'me';
  if (!member.online) return 'offline';
  return member.path ? 'connected' : 'connecting';
}

/** The other members that came by the link of this one, as far as they can be removed. */
export function sameLink(party: PartyView, id: string): MemberView[] {
  const invite = party.members.find((member) => member.id === id)?.invite;
  return party.members.filter((member) => member.id !== id && !member.me && member.role !== 'owner' && member.invite === invite);
}

/** Names as a list, of which the language knows how to write it. */
export function names(members: readonly MemberView[]): string {
  return new Intl.ListFormat(locale(), { type: 'conjunction' }).format(members.map((member) => member.name));
}
