import { clearMocks, mockIPC } from '@tauri-apps/api/mocks';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { many, party, snapshot } from '../../mock/world';
import type { Command } from '../bindings';

vi.hoisted(() => {
  Object.assign(globalThis, { window: globalThis });
});
const told = vi.hoisted(() => ({ error: [] as string[], success: [] as string[] }));
vi.mock('svelte-sonner', () => ({
  toast: { error: (text: string) => told.error.push(text), success: (text: string) => told.success.push(text) },
}));

const { FRIENDS, app } = await import('./app.svelte');

let asked: Command[] = [];
/** Answers of the engine by command; an error is thrown as the shell does. */
let answers: Record<string, unknown> = {};

beforeEach(() => {
  asked = [];
  answers = {};
  told.error.length = 0;
  told.success.length = 0;
  mockIPC((name, args) => {
    if (name !== 'request') return null;
    const { command } = args as { command: Command };
    asked.push(command);
    const answer = answers[command.command] ?? { reply: 'done' };
    if (typeof answer === 'object' && answer !== null && 'code' in answer) throw answer;
    return answer;
  });
  app.open(null);
  app.show({ at: 'home' });
});
afterEach(() => clearMocks());

const friday = () => party(1, 'Friday', many(4));

describe('snapshots', () => {
  it('bring samples once', () => {
    const first = friday();
    app.take(snapshot([first]));
    const added = app.sampled;
    app.take(snapshot([first]));
    expect(app.sampled).toBe(added);
    const jonas = first.members[1];
    expect(app.samples.of(first.id, jonas?.id ?? '').rtt).toEqual([jonas?.quality.latest?.rtt_ms]);
  });

  it('lead home from a party that is gone', () => {
    const first = friday();
    app.take(snapshot([first]));
    app.show({ at: 'party', party: first.id });
    app.take(snapshot([]));
    expect(app.screen).toEqual({ at: 'home' });
  });
});

it('stays at a party that no snapshot has yet', async () => {
  const made = friday();
  app.take(snapshot([]));
  answers = { create: { reply: 'created', value: { party: made.id, link: 'partyline://join/x' } } };
  await app.createParty('Friday');
  app.take(snapshot([]));
  expect(app.screen).toEqual({ at: 'party', party: made.id });
});

it('creates a party and opens its invite with the link that came with it', async () => {
  const made = friday();
  app.take(snapshot([made]));
  answers = { create: { reply: 'created', value: { party: made.id, link: 'partyline://join/x' } } };
  await app.createParty('Friday');
  expect(asked).toEqual([{ command: 'create', name: 'Friday', display_name: 'Mira', servers: [], range: null }]);
  expect(app.screen).toEqual({ at: 'party', party: made.id });
  expect(app.dialog).toEqual({ kind: 'invite', party: made.id });
  expect((await app.invite(made.id, FRIENDS)).link).toBe('partyline://join/x');
  expect(asked).toHaveLength(1);
});

it('makes a link for the same terms once, and anew after one was taken back', async () => {
  answers = { invite: { reply: 'invite', value: { link: 'l' } } };
  await app.invite('p', { ...FRIENDS, lifetime: 'never' });
  await app.invite('p', { ...FRIENDS, lifetime: 'never' });
  await app.invite('p', { ...FRIENDS, lifetime: 'hour' });
  await app.invite('p', { ...FRIENDS, lifetime: 'never', uses: 1 });
  expect(asked).toHaveLength(3);
  await app.revoke('p', 'i');
  await app.invite('p', { ...FRIENDS, lifetime: 'never' });
  await app.kick('p', 'm', { same_link: false, all_links: false });
  await app.invite('p', { ...FRIENDS, lifetime: 'never' });
  expect(asked.map(({ command }) => command)).toEqual(['invite', 'invite', 'invite', 'revoke', 'invite', 'kick', 'invite']);
});

it('tells what went wrong and stays where it was', async () => {
  answers = { kick: { code: 'not_owner', message: 'Only the owner may do this.', hint: 'Ask the owner.' } };
  expect(await app.kick('p', 'm', { same_link: false, all_links: false })).toBe(false);
  expect(told.error).toEqual(['Only the owner may do this.']);
  expect(app.busy.size).toBe(0);
});

it('refuses an answer of another kind', async () => {
  answers = { join: { reply: 'done' } };
  expect(await app.joinParty('partyline://join/x')).toBe(false);
  expect(told.error).toHaveLength(1);
});

it('does one thing of a name at a time', async () => {
  const both = await Promise.all([app.leave('p'), app.leave('p')]);
  expect(both).toEqual([true, false]);
  expect(asked).toHaveLength(1);
});

it('changes one setting and keeps the others', async () => {
  app.take(snapshot([]));
  await app.configure({ relay: false });
  expect(asked).toEqual([{ command: 'configure', settings: { ...app.settings, relay: false } }]);
});

it('offers a link from the clipboard until it is turned down', () => {
  app.offer('partyline://join/a');
  expect(app.offered).toBe('partyline://join/a');
  app.forgetOffer();
  app.offer('partyline://join/a');
  expect(app.offered).toBeNull();
  app.offer('partyline://join/b');
  expect(app.offered).toBe('partyline://join/b');
});

it('fetches the past of a member once', async () => {
  answers = { samples: { reply: 'samples', value: [{ at_ms: 1, rtt_ms: 5, path: 'relay' }] } };
  await Promise.all([app.loadPast('p', 'm'), app.loadPast('p', 'm')]);
  expect(asked).toHaveLength(1);
  expect(app.samples.of('p', 'm').rtt).toEqual([5]);
});
