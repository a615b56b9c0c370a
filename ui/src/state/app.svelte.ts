// All that the interface knows. Snapshots come in, requests go out; components only read and call.
import { createSubscriber } from 'svelte/reactivity';
import { toast } from 'svelte-sonner';
import type { AppError, Backing, ClientCommand, IncomingLevel, InviteLifetime, InviteTerms, KickScope, PartyView, PortRule, Preferences, ServicePort, Snapshot, TestTarget } from '../bindings';
import { setLanguage, t } from '../i18n/index.svelte';
import { ask, asError, settle, shell } from '../lib/ipc';
import { SampleLog } from '../lib/samples';
import type { Settings } from '../lib/settings';
import { errorText } from '../lib/words';

export type Screen = { at: 'home' } | { at: 'party'; party: string } | { at: 'network' } | { at: 'settings' };
export type Dialog =
  | { kind: 'create' }
  | { kind: 'join'; link: string }
  | { kind: 'invite'; party: string }
  | { kind: 'invites'; party: string }
  | { kind: 'revoke'; party: string; invite: string }
  | { kind: 'kick'; party: string; member: string }
  | { kind: 'leave'; party: string }
  | { kind: 'range'; party: string }
  | { kind: 'reach'; party: string }
  | { kind: 'identity' }
  | { kind: 'text'; title: string; name: string; text: string }
  | { kind: 'import' }
  | { kind: 'shortcuts' };

/** What an invite allows unless the user chooses otherwise: it fits a group of friends. */
export const FRIENDS: InviteTerms = { lifetime: 'day', uses: 10, role: 'member' };

const linkKey = (party: string, { lifetime, uses, role }: InviteTerms) => `${party}/${lifetime}/${uses}/${role}`;

class App {
  snapshot = $state.raw<Snapshot | null>(null);
  backing = $state.raw<Backing | null>(null);
  preferences = $state.raw<Preferences | null>(null);
  screen = $state.raw<Screen>({ at: 'home' });
  dialog = $state.raw<Dialog | null>(null);
  /** The member whose panel is open. */
  member = $state.raw<string | null>(null);
  /** Members whose lines stay in the chart of a large party. */
  pinned = $state.raw<ReadonlySet<string>>(new Set());
  /** The pinned members and the one whose panel is open. */
  chosen = $derived<ReadonlySet<string>>(new Set([...(this.member ? [this.member] : []), ...this.pinned]));
  /** An invite that lies on the clipboard and was not turned down. */
  offered = $state.raw<string | null>(null);
  /** Names of what is under way, so that buttons can wait. */
  busy = $state.raw<ReadonlySet<string>>(new Set());
  /** Grows when samples were added. */
  sampled = $state(0);
  readonly samples = new SampleLog();

  /** When the snapshot came: what it says is so many seconds ago has grown older since. */
  private taken = Date.now();
  private tick = createSubscriber((update) => {
    const timer = setInterval(update, 1000);
    return () => clearInterval(timer);
  });
  private links = new Map<string, { link: string; until: number }>();
  private declined: string | null = null;

  parties = $derived(this.snapshot?.parties ?? []);
  settings = $derived((this.snapshot?.settings ?? null) as Settings | null);
  named = $derived((this.settings?.display_name ?? '') !== '');
  /** Whether what is shown is from before the engine was lost. */
  adrift = $derived(this.backing?.kind === 'none' && this.snapshot !== null);
  online = $derived(typeof navigator === 'undefined' || navigator.onLine);

  /** Wall clock, once a second as long as something shows it. */
  get now(): number {
    this.tick();
    return Date.now();
  }

  /** How many seconds ago it is what was `seconds` ago in the snapshot. */
  ago = (seconds: number) => seconds + Math.max(0, this.now - this.taken) / 1000;

  party = (id: string): PartyView | undefined => this.parties.find((party) => party.id === id);

  /** Takes a snapshot, and from it the samples that are new. */
  take(snapshot: Snapshot) {
    // A party that was just made may not be in the next snapshot yet; only one that was there can be gone.
    const shown = this.screen.at === 'party' ? this.party(this.screen.party) : undefined;
    this.snapshot = snapshot;
    this.taken = Date.now();
    const keys = new Set<string>();
    let added = false;
    for (const party of snapshot.parties) {
      for (const { id, quality } of party.members) {
        keys.add(`${party.id}/${id}`);
        if (quality.latest) added = this.samples.of(party.id, id).append(quality.latest) || added;
      }
    }
    this.samples.keep(keys);
    if (added) this.sampled += 1;
    if (shown && !this.party(shown.id)) this.show({ at: 'home' });
  }

  show(screen: Screen) {
    if (JSON.stringify(screen) !== JSON.stringify(this.screen)) this.member = null;
    this.screen = screen;
  }

  open(dialog: Dialog | null) {
    this.dialog = dialog;
  }

  /** Runs a request under a name; what goes wrong is told in a toast. Says whether it worked. */
  async run(name: string, work: () => Promise<void>): Promise<boolean> {
    if (this.busy.has(name)) return false;
    this.busy = new Set([...this.busy, name]);
    try {
      await work();
      return true;
    } catch (thrown) {
      this.tell(asError(thrown));
      return false;
    } finally {
      this.busy = new Set([...this.busy].filter((other) => other !== name));
    }
  }

  tell(error: AppError) {
    const { message, hint } = errorText(error);
    toast.error(message, { description: hint || undefined, duration: 8000 });
  }

  private done = (name: string, command: ClientCommand) => this.run(name, async () => void (await ask(command, 'done')));

  createParty = (name: string) =>
    this.run('create', async () => {
      const display_name = this.settings?.display_name ?? '';
      const made = await ask({ command: 'create', name, display_name, servers: [], range: null }, 'created');
      this.remember(made.party, FRIENDS, made.link);
      this.show({ at: 'party', party: made.party });
      this.open({ kind: 'invite', party: made.party });
    });

  joinParty = (link: string) =>
    this.run('join', async () => {
      // In a party of an earlier identity the name of then is known, and no name asks for it.
      const { party: invited } = await this.preview(link);
      const former = this.snapshot?.former_parties?.some((known) => known.id === invited);
      const display_name = former ? '' : (this.settings?.display_name ?? '');
      const { party } = await ask({ command: 'join', link, display_name }, 'joined');
      this.forgetOffer(link);
      this.open(null);
      this.show({ at: 'party', party });
    });

  /** The link of the invite in any text. */
  findInvite = (text: string) => settle(shell.findInvite(text));

  preview = (link: string) => ask({ command: 'preview', link }, 'preview');

  /** A link for a party: the one made before if it is still young, else a new one. */
  async invite(party: string, terms: InviteTerms): Promise<{ link: string; until: number }> {
    const known = this.links.get(linkKey(party, terms));
    if (known && known.until - Date.now() >= spans[terms.lifetime] / 2) return known;
    const { link } = await ask({ command: 'invite', party, terms }, 'invite');
    return this.remember(party, terms, link);
  }

  private remember(party: string, terms: InviteTerms, link: string) {
    const made = { link, until: Date.now() + spans[terms.lifetime] };
    this.links.set(linkKey(party, terms), made);
    return made;
  }

  private forgetLinks(party: string) {
    for (const key of [...this.links.keys()]) if (key.startsWith(`${party}/`)) this.links.delete(key);
  }

  /** Takes an invite back; links made here may be it, so none is shown again. */
  revoke = (party: string, invite: string) => {
    this.forgetLinks(party);
    return this.done('revoke', { command: 'revoke', party, invite });
  };
  /** Removes a member, which ends the link that it came by. */
  kick = (party: string, member: string, scope: KickScope) => {
    this.forgetLinks(party);
    return this.done('kick', { command: 'kick', party, member, scope });
  };
  leave = (party: string) => this.done('leave', { command: 'leave', party });
  /** Moves a party to another range; without one, to a range that is free. */
  setRange = (party: string, range: string | null) => this.done('range', { command: 'set_range', party, range });
  setApproval = (party: string, on: boolean) => this.done('approval', { command: 'set_approval', party, on });
  /** Lets a device in that asks to join, or declines it. */
  answerJoin = (party: string, device: string, approve: boolean) =>
    this.done(`join ${device}`, { command: 'answer_join', party, device, approve });
  /** Confirms a server that others named, so that it is used at private addresses, too. */
  trustServer = (url: string) => this.done('trust', { command: 'trust_server', url });
  requestRange = (party: string) => this.done('ask range', { command: 'request_range', party });
  /** The ports that programs of this computer offer to a party. */
  offeredPorts = (party: string) => ask({ command: 'offered_ports', party }, 'offered_ports');
  setIncomingLevel = (party: string, level: IncomingLevel) => this.done('reach', { command: 'set_incoming_level', party, level });
  setPortRule = (party: string, port: ServicePort, rule: PortRule | null) => this.done('reach', { command: 'set_port_rule', party, port, rule });
  newIdentity = () => this.done('identity', { command: 'new_identity' });
  forgetFormer = (party: string) => this.done('forget', { command: 'forget_former', party });
  connect = (party: string, on: boolean) => this.done(`switch ${party}`, { command: on ? 'up' : 'down', party });
  netcheck = () => this.done('netcheck', { command: 'netcheck', stun: [] });
  /** The round trip to a server or relay, tried now. */
  testServer = async (target: TestTarget) => (await ask({ command: 'test_server', target }, 'pong')).rtt_ms;
  doctor = () => ask({ command: 'doctor' }, 'doctor');

  configure = (change: Partial<Settings>) =>
    this.run('configure', async () => {
      if (!this.settings) return;
      await ask({ command: 'configure', settings: { ...this.settings, ...change } }, 'done');
    });

  ping = (party: string, member: string) =>
    this.run('ping', async () => {
      const { rtt_ms } = await ask({ command: 'ping', party, member }, 'pong');
      toast.success(t('member.pong', { ms: rtt_ms < 10 ? rtt_ms.toFixed(1) : Math.round(rtt_ms) }));
    });

  /** Has those measured whom somebody looks at; whatever keeps the engine from it is told elsewhere. */
  async look(party: string, members: string[]) {
    if (members.length) await ask({ command: 'measure_paths', party, members }, 'done').catch(() => {});
  }

  /** Adds a member's line to the chart of a large party, or removes it. */
  togglePinned(member: string) {
    const pinned = new Set(this.pinned);
    if (!pinned.delete(member)) pinned.add(member);
    this.pinned = pinned;
  }

  /** Fetches a member's past hour, once. */
  async loadPast(party: string, member: string) {
    const series = this.samples.of(party, member);
    if (series.loaded) return;
    series.loaded = true;
    try {
      series.prepend(await ask({ command: 'samples', party, member }, 'samples'));
      this.sampled += 1;
    } catch {
      // Without the past the chart grows from now on; nothing a person could do.
      series.loaded = false;
    }
  }

  async copy(text: string, said: string) {
    return this.run('copy', async () => {
      await settle(shell.copyText(text));
      toast.success(said);
    });
  }

  startService = () => this.run('service', async () => void (await settle(shell.startService())));

  openExternal = (url: string) => this.run('open', async () => void (await settle(shell.openExternal(url))));

  importSettings = (text: string) => this.run('import', async () => void (await settle(shell.importSettings(text))));

  exportSettings = () =>
    this.run('export', async () => {
      const text = await settle(shell.exportSettings());
      this.open({ kind: 'text', title: t('data.settings'), name: 'partyline-settings.json', text });
    });

  diagnostics = () =>
    this.run('diagnostics', async () => {
      const text = await shell.diagnostics();
      this.open({ kind: 'text', title: t('data.diagnostics'), name: 'partyline-diagnostics.txt', text });
    });

  async prefer(change: Partial<Preferences>) {
    if (!this.preferences) return;
    const before = this.preferences;
    this.apply({ ...before, ...change });
    const kept = await this.run('preferences', async () => {
      await settle(shell.setPreferences({ ...before, ...change }));
    });
    if (!kept) this.apply(before);
  }

  /** Puts theme and language in force. */
  apply(preferences: Preferences) {
    this.preferences = preferences;
    setLanguage(preferences.language);
    const light = matchMedia('(prefers-color-scheme: light)').matches;
    const theme = preferences.theme === 'system' ? (light ? 'light' : 'dark') : preferences.theme;
    document.documentElement.dataset.theme = theme;
  }

  offer(link: string | null) {
    if (link && link !== this.declined) this.offered = link;
  }

  forgetOffer(link: string | null = this.offered) {
    this.declined = link;
    this.offered = null;
  }
}

/** How long links of each kind last, in milliseconds. */
const spans: Record<InviteLifetime, number> = {
  hour: 3_600_000,
  day: 86_400_000,
  week: 604_800_000,
  never: Number.POSITIVE_INFINITY,
};

export const app = new App();
