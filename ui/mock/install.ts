// Stands in for the shell in tests of the interface. Loaded in mode `mock` only.
import { emit } from '@tauri-apps/api/event';
import { mockIPC } from '@tauri-apps/api/mocks';
import type { AppError, ClientCommand, OfferedPort, Preferences, Reply, Sample, ServicePort, Snapshot } from '../src/bindings';
import { portName } from '../src/lib/ports';
import { sameLink } from '../src/lib/words';
import { scenarios, LINK, type Scenario } from './scenarios';
import { app } from '../src/state/app.svelte';
import { setLanguage } from '../src/i18n/index.svelte';
import { id, many, quiet, member, party, quality, random } from './world';

const query = new URLSearchParams(location.search);
const chance = random(7);
let scenario: Scenario;
let preferences: Preferences = {
  theme: (query.get('theme') as Preferences['theme'] | null) ?? 'dark',
  language: (query.get('lang') as Preferences['language'] | null) ?? 'en',
  autostart: false, start_minimised: false, close_to_tray: true, notifications: { joins: true, connection: true }, hints_seen: [],
};

const refuse = (code: AppError['code'], message: string, hint: string): never => {
  throw { code, message, hint } satisfies AppError;
};

/** What was asked of the shell, for tests to look at. */
const asked: { name: string; args: unknown }[] = [];

function change(update: (snapshot: Snapshot) => Snapshot) {
  if (!scenario.snapshot) return;
  scenario.snapshot = { ...update(scenario.snapshot), revision: scenario.snapshot.revision + 1 };
  void emit('snapshot-changed', scenario.snapshot);
}

const replace = (snapshot: Snapshot, id: string, update: (party: Snapshot['parties'][number]) => Snapshot['parties'][number]): Snapshot => ({
  ...snapshot, parties: snapshot.parties.map((party) => (party.id === id ? update(party) : party)),
});

const done: Reply = { reply: 'done' };

/** What this computer offers, and whether the party of that id reaches it. */
function offered(id: string): OfferedPort[] {
  const incoming = scenario.snapshot?.parties.find((entry) => entry.id === id)?.incoming;
  const level = incoming?.level ?? 'games';
  const known: [ServicePort, string | null, string | null][] = [
    [{ protocol: 'tcp', port: 22 }, 'sshd', 'Remote login (SSH)'],
    [{ protocol: 'tcp', port: 445 }, null, 'File sharing (SMB)'],
    [{ protocol: 'tcp', port: 25565 }, 'java', null],
    [{ protocol: 'udp', port: 5353 }, 'avahi-daemon', 'Names (mDNS)'],
    [{ protocol: 'udp', port: 27015 }, 'srcds_linux', null],
  ];
  return known.map(([port, program, service]) => {
    const ruled = (ports?: ServicePort[]) => ports?.some((one) => portName(one) === portName(port));
    const open = level === 'everything' || (level === 'games' && !service);
    const access = ruled(incoming?.blocked) ? 'blocked_by_user' : ruled(incoming?.allowed) ? 'allowed_by_user' : open ? 'reachable' : 'blocked_by_default';
    return { port, listening: true, program, service, access };
  });
}

function request(command: ClientCommand): Reply {
  const now = Date.now();
  switch (command.command) {
    case 'create': {
      const made = party(40, command.name, many(1));
      change((snapshot) => ({ ...snapshot, parties: [...snapshot.parties, made] }));
      return { reply: 'created', value: { party: made.id, link: LINK } };
    }
    case 'preview': return preview(command.link, now);
    case 'join': {
      const made = party(41, 'Friday Night', many(5).map((entry, index) => ({ ...entry, role: index === 1 ? 'owner' : 'member' })));
      change((snapshot) => ({ ...snapshot, parties: [...snapshot.parties, made] }));
      return { reply: 'joined', value: { party: made.id } };
    }
    case 'invite': {
      const seconds = { hour: 3600, day: 86_400, week: 604_800, never: null }[command.terms.lifetime];
      change((snapshot) => replace(snapshot, command.party, (entry) => ({
        ...entry,
        invites: [...entry.invites, { id: id(9100 + entry.invites.length), expires: seconds && Math.floor(now / 1000) + seconds, used: 0, uses: command.terms.uses, role: command.terms.role }],
      })));
      return { reply: 'invite', value: { link: LINK } };
    }
    case 'revoke':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({ ...entry, invites: entry.invites.filter((invite) => invite.id !== command.invite) })));
      return done;
    case 'kick':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({ ...entry, members: entry.members.filter((other) => other.id !== command.member && !(command.scope?.same_link && sameLink(entry, command.member).includes(other))), invites: command.scope?.all_links ? [] : entry.invites })));
      return done;
    case 'set_approval':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({ ...entry, approval: command.on, join_requests: [] })));
      return done;
    case 'answer_join':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({
        ...entry,
        join_requests: (entry.join_requests ?? [])
          .filter((request) => !command.approve || request.device !== command.device)
          .map((request) => ({ ...request, declined: request.declined || request.device === command.device })),
      })));
      return done;
    case 'leave':
      change((snapshot) => ({ ...snapshot, parties: snapshot.parties.filter((entry) => entry.id !== command.party) }));
      return done;
    case 'up':
    case 'down':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({ ...entry, phase: command.command === 'up' ? 'up' : 'down' })));
      return done;
    case 'trust_server':
      change((snapshot) => ({ ...snapshot, parties: snapshot.parties.map((entry) => ({
        ...entry, servers: entry.servers.map((server) => (server.url === command.url ? { ...server, connected: true, problem: null } : server)),
      })) }));
      return done;
    case 'set_range':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({
        ...entry, range: command.range ?? '10.97.3.0/24', problem: null,
        members: entry.members.map((other) => ({ ...other, notices: { ...quiet, ...other.notices, range_clash: null } })),
      })));
      return done;
    case 'request_range':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({ ...entry, range_requested: true })));
      return done;
    case 'set_incoming_level':
      change((snapshot) => replace(snapshot, command.party, (entry) => ({ ...entry, incoming: { ...entry.incoming, level: command.level } })));
      return done;
    case 'set_port_rule': {
      const others = (known?: ServicePort[]) => (known ?? []).filter((one) => portName(one) !== portName(command.port));
      change((snapshot) => replace(snapshot, command.party, (entry) => ({ ...entry, incoming: {
        ...entry.incoming,
        allowed: [...others(entry.incoming?.allowed), ...(command.rule === 'allow' ? [command.port] : [])],
        blocked: [...others(entry.incoming?.blocked), ...(command.rule === 'block' ? [command.port] : [])],
      } })));
      return done;
    }
    case 'offered_ports': return { reply: 'offered_ports', value: offered(command.party) };
    case 'new_identity':
      change((snapshot) => ({
        ...snapshot, parties: [],
        former_parties: snapshot.parties.map(({ id, name }) => ({ id, name, display_name: snapshot.settings.display_name ?? '' })),
      }));
      return done;
    case 'forget_former':
      change((snapshot) => ({ ...snapshot, former_parties: snapshot.former_parties?.filter((known) => known.id !== command.party) }));
      return done;
    case 'configure':
      change((snapshot) => ({ ...snapshot, settings: command.settings }));
      return done;
    case 'netcheck': {
      const checking = scenarios.checking?.().snapshot?.network;
      if (checking) change((snapshot) => ({ ...snapshot, network: checking }));
      return done;
    }
    case 'ping': return { reply: 'pong', value: { rtt_ms: 31.4 } };
    case 'test_server': {
      const url = command.target.kind === 'server' ? command.target.url : (command.target.relay.url ?? '');
      if (url.includes('gone')) refuse('server_unreachable', `The server ${url} cannot be used: gone.example.org refused the connection on port 443.`, 'The server may not be running.');
      return { reply: 'pong', value: { rtt_ms: 23.4 } };
    }
    case 'samples': return { reply: 'samples', value: past(command.member, now) };
    case 'doctor':
      return {
        reply: 'doctor',
        value: [
          { what: 'Network device', verdict: 'good', note: 'Can be made.' },
          { what: 'Server wss://play.example.org', verdict: 'good', note: 'Connected, 14 ms.' },
          { what: 'Router', verdict: 'fair', note: 'Opens no ports. Switch on UPnP to make direct connections likelier.' },
          { what: 'Clock', verdict: 'bad', note: 'Runs 22 minutes late. Set it right, or invites look ended.' },
        ],
      };
    default: return done;
  }
}

function preview(link: string, now: number): Reply {
  if (link.includes('expired')) refuse('invite_expired', 'This invite ended yesterday at 18:00.', 'Ask Jonas for a new one.');
  if (link.includes('revoked')) refuse('invite_revoked', 'The owner took this invite back.', 'Ask for a new one.');
  if (!link.includes('/join')) refuse('invite_malformed', 'This is not an invite link.', 'Copy the whole link and paste it again.');
  const value = { party: id(4097), name: 'Friday Night', inviter: 'Jonas', members: 4, expires: now + 79_000_000, role: 'member' as const, servers: ['wss://play.example.org'], member: link.includes('member') };
  return { reply: 'preview', value };
}

function find(member: string) {
  return scenario.snapshot?.parties.flatMap((entry) => entry.members).find((entry) => entry.id === member);
}

/** An hour with a relay at first, then the path of today, with some loss. */
function past(who: string, now: number): Sample[] {
  const entry = find(who);
  const rtt = entry?.quality.rtt_ms ?? 30;
  const kind = entry?.path?.kind ?? 'direct';
  // A member in view is measured every other second.
  return Array.from({ length: 1800 }, (_, index) => {
    const age = 3600 - 2 * index;
    const relayed = age > 1843;
    const noise = 1 + (chance() - 0.5) * 0.16 + Math.sin(index / 45) * 0.05;
    const lost = chance() < (entry?.quality.loss ?? 0) * 0.3 + 0.0001;
    return { at_ms: now - age * 1000, rtt_ms: lost ? null : (relayed ? rtt + 38 : rtt) * noise, path: relayed ? 'relay' : kind };
  });
}

/** One more sample for every member, as the engine's next snapshot would bring it. */
function tick(snapshot: Snapshot, at = Date.now()): Snapshot {
  return {
    ...snapshot,
    revision: snapshot.revision + 1,
    parties: snapshot.parties.map((entry) => ({
      ...entry,
      members: entry.members.map((other) => {
        if (!other.path || other.quality.rtt_ms === null || entry.phase !== 'up') return other;
        const base = member(parseInt(other.id.slice(0, 8), 16) - 17, other.name).quality;
        const rtt = (base.rtt_ms ?? 30) * (1 + (chance() - 0.5) * 0.2);
        const next = quality(rtt, base.loss ?? 0, at, other.path.kind);
        const lost = chance() < (base.loss ?? 0);
        return { ...other, quality: { ...next, latest: { at_ms: at, rtt_ms: lost ? null : rtt, path: other.path.kind } } };
      }),
    })),
  };
}

const answers: Record<string, (args: Record<string, unknown>) => unknown> = {
  request: ({ command }) => request(command as ClientCommand),
  snapshot: () => scenario.snapshot,
  backing: () => scenario.backing,
  start_service: () => {
    scenario.backing = { kind: 'service', problem: null };
    scenario.snapshot ??= scenarios.party8?.().snapshot ?? null;
    void emit('backing-changed', scenario.backing);
    return null;
  },
  take_link: () => {
    const { link } = scenario;
    scenario.link = undefined;
    return link ?? null;
  },
  find_invite: ({ text }) => (text as string).trim(),
  clipboard_link: () => scenario.clipboard ?? null,
  copy_text: () => null,
  preferences: () => preferences,
  set_preferences: (args) => {
    preferences = args.preferences as Preferences;
    return null;
  },
  open_external: () => null,
  export_settings: () => JSON.stringify(scenario.snapshot?.settings, null, 2),
  import_settings: () => null,
  diagnostics: () => 'Partyline 0.1.0\n',
  system_name: () => 'Mira',
  quit: () => null,
};

export async function install() {
  const name = query.get('scenario') ?? 'party8';
  scenario = (scenarios[name] ?? scenarios.party8 ?? (() => ({ snapshot: null, backing: { kind: 'none', problem: null } })))();
  mockIPC((command, args) => {
    const answer = answers[command];
    if (!answer) return null;
    asked.push({ name: command, args });
    return answer((args ?? {}) as Record<string, unknown>);
  }, { shouldMockEvents: true });
  const rate = Number(query.get('rate') ?? 1);
  Object.assign(window, { mock: { asked, speak: setLanguage, theme: (theme: Preferences['theme']) => app.prefer({ theme }), step: () => change((snapshot) => tick(snapshot)) } });
  if (rate > 0) setInterval(() => change((snapshot) => tick(snapshot)), 1000 / rate);
}
