// The states of the interface by name; `?scenario=` in the address chooses.
import type { Backing, MemberNotices, NetworkView, Snapshot } from '../src/bindings';
import { errors, hardNames, id, many, member, network, party, quiet, settings, snapshot } from './world';

export interface Scenario {
  snapshot: Snapshot | null;
  backing: Backing;
  link?: string;
  clipboard?: string;
}

const service: Backing = { kind: 'service', problem: null };
const world = (value: Snapshot | null, rest: Partial<Scenario> = {}): Scenario => ({ snapshot: value, backing: service, ...rest });
const friday = () => party(1, 'Friday Night', many(8));
const others = () => [
  party(2, 'Age of Empires II', many(4).map((entry, index) => ({ ...entry, role: index === 1 ? 'owner' : 'member' }))),
  party(3, 'Work LAN', many(3), { phase: 'down' }),
];
const noticed = (at: number, notices: Partial<MemberNotices>) =>
  many(5).map((entry, index) => (index === at ? { ...entry, notices: { ...quiet, ...notices } } : entry));
export const LINK = 'https://play.example.org/join#PLY14Wu0El6XFXwsUFD8J2vGxsaboW7rZYnQRBP5d9erwRwd290TWD4V5tkyUQGc5qXvlBDd2Fj97aqsMoBGJJjsttG4I0iHJbkdqdSjdOv8lotdlpRYNaigOHJYDGtSybpLpt6R0x2Q90BnVwyqXEBh5rWMRG4VSIFBhkjcMWcdTlnmW8a0x2Q90BnVwyqXEBh5rWMRG4VSIFBhkjcMWcdTlnmW8aPRMdxPVIXeEV3ejUrYEDMZbK9d3V66D2JibE2sRTVw03Q8faQLepGnIKAC5OzNctb2pXvHP';

const checking: NetworkView = {
  ...network,
  badge: null,
  nat: { ...network.nat, mapping: null, filtering: null, allocation: null, hairpin: null, lifetime: null },
  report: {
    ...network.report,
    running: true,
    measured_at: null,
    steps: network.report.steps.map((step, index) => ({ ...step, state: (['known', 'known', 'running'] as const)[index] ?? 'waiting' })),
  },
};
const strict: NetworkView = {
  ...network,
  badge: 'symmetric' as const,
  nat: {
    ...network.nat, mapping: 'address_and_port_dependent' as const, allocation: 'random' as const, carrier_nat: true, double_nat: true,
    ipv6: false, firewall_v6: null, hairpin: null, public: ['100.64.7.9'],
  },
  report: {
    ...network.report,
    router: network.report.router.map((router) => ({ ...router, works: false, problem: 'The router did not answer.' })),
    gaps: ['Whether inside computers meet at the outside address: the router did not answer.'],
  },
};
const blocked: NetworkView = {
  ...strict,
  badge: 'udp_blocked' as const,
  nat: { ...strict.nat, mapping: null, filtering: null, allocation: null, udp_blocked: true, carrier_nat: null, double_nat: null, public: [] },
};

export const scenarios: Record<string, () => Scenario> = {
  welcome: () => world(snapshot([], { settings: { ...settings, display_name: '' } })),
  empty: () => world(snapshot([])),
  clipboard: () => world(snapshot([]), { clipboard: LINK }),
  starting: () => world(null),
  service_gone: () => world(null, { backing: { kind: 'none', problem: errors.service } }),
  service_lost: () => world(snapshot([friday(), ...others()]), { backing: { kind: 'none', problem: errors.service } }),
  party8: () => world(snapshot([friday(), ...others()])),
  servers: () =>
    world(snapshot([friday()], {
      settings: {
        ...settings, servers: ['wss://play.example.org', 'wss://gone.example.org'],
        relays: [{ url: 'turn:relay.example.org:3478', username: 'mira', password: '' }],
      },
    })),
  alone: () => world(snapshot([party(1, 'Friday Night', many(1))])),
  alone_blocked: () => world(snapshot([party(1, 'Friday Night', many(1), { servers: [], discovery: 'blocked' })])),
  alone_searching: () => world(snapshot([party(1, 'Friday Night', many(1), { servers: [], discovery: 'searching' })])),
  connecting: () => world(snapshot([party(1, 'Friday Night', [], { phase: 'connecting', range: null, role: 'member' })])),
  reaching: () =>
    world(snapshot([party(1, 'Friday Night', many(5).map((entry) => (entry.me ? entry : { ...entry, path: null, quality: { ...entry.quality, rtt_ms: null, latest: null } })))])),
  down: () => world(snapshot([party(1, 'Friday Night', many(6).map((entry) => ({ ...entry, online: entry.me, path: null })), { phase: 'down' })])),
  party250: () => world(snapshot([party(1, 'The Whole School', many(250)), ...others()])),
  names: () => world(snapshot([party(1, 'حفلة ليلة الجمعة مع كل الأصدقاء والأقارب', many(10, hardNames)), party(2, 'Wolfeschlegelsteinhausenbergerdorff LAN', many(3, hardNames))])),
  guest: () => world(snapshot([party(1, 'Friday Night', many(8).map((entry, index) => ({ ...entry, role: index === 1 ? 'owner' : 'member' })))])),
  server_gone: () =>
    world(snapshot([party(1, 'Friday Night', many(5), { servers: [{ url: 'wss://play.example.org', connected: false, problem: errors.server }] })])),
  server_at_home: () =>
    world(snapshot([party(1, 'Friday Night', many(5), { servers: [{ url: 'wss://play.example.org', connected: false, problem: errors.hairpin }] })])),
  server_private: () =>
    world(snapshot([party(1, 'Friday Night', many(5).map((entry, index) => ({ ...entry, role: index === 1 ? 'owner' : 'member' })), {
      servers: [{ url: 'ws://192.168.178.20:4480', connected: false, problem: errors.private }],
    })])),
  range_conflict: () => world(snapshot([party(1, 'Friday Night', many(5), { phase: 'connecting', problem: errors.range })])),
  range_clash: () =>
    world(snapshot([party(1, 'Friday Night', many(5).map((entry, index) => ({ ...entry, role: index === 1 ? 'owner' : 'member' })), { problem: errors.range })])),
  range_asked: () => world(snapshot([party(1, 'Friday Night', noticed(2, { range_clash: '10.86.0.0/24' }))])),
  storm: () => world(snapshot([party(1, 'Friday Night', noticed(2, { broadcasts_dropped: 12_345 }))])),
  shared_router: () => world(snapshot([party(1, 'Friday Night', noticed(2, { no_hairpin: 'router' }))])),
  shared_carrier: () => world(snapshot([party(1, 'Friday Night', noticed(2, { no_hairpin: 'carrier' }))])),
  copied: () => world(snapshot([party(1, 'Friday Night', noticed(1, { copied: true }))])),
  copy: () => world(snapshot([party(1, 'Friday Night', many(5), { phase: 'down', interface: null, problem: errors.copy })])),
  former: () => world(snapshot([], { former_parties: [{ id: party(1, 'x', []).id, name: 'Friday Night', display_name: 'Mira' }] })),
  approval: () => world(snapshot([party(1, 'Friday Night', many(3).map((entry, index) => ({ ...entry, alike: index === 1 })), { approval: true, join_requests: [
    { device: id(71), name: 'Jonas', alike: true, invite: id(9001), declined: false },
    { device: id(72), name: 'A very long name with words in it', alike: false, invite: id(9001), declined: false },
    { device: id(73), name: 'محمد عبد الرحمن', alike: false, invite: id(9001), declined: true },
  ] })])),
  awaiting: () => world(snapshot([party(1, 'Friday Night', many(1).map((entry) => ({ ...entry, role: 'member', online: false })), { phase: 'connecting', waits_for: 'approval' })])),
  declined: () => world(snapshot([party(1, 'Friday Night', many(1).map((entry) => ({ ...entry, role: 'member', online: false })), {
    phase: 'connecting', waits_for: 'reconsideration', problem: { code: 'not_approved', message: 'This computer is not in Friday Night yet: the owner declined.', hint: 'Ask the owner, who can still let this computer in.' },
  })])),
  unconfirmed: () => world(snapshot([party(1, 'Friday Night', many(3).map((entry, index) => (index === 1 ? member(1, 'Jonas', { confirmed: false }) : entry)))])),
  checking: () => world(snapshot([friday()], { network: checking })),
  strict: () => world(snapshot([friday()], { network: strict })),
  blocked: () => world(snapshot([friday()], { network: blocked })),
  deep_link: () => world(snapshot([friday()]), { link: LINK }),
};
