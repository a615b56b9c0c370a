// A made-up world for tests of the interface: snapshots as the engine sends them, for every state worth looking at.
import type {
  AppError, Attempt, Badge, Grade, MemberNotices, MemberView, NetworkView, PartyView, PathKind, PathView, Quality, Role, Snapshot,
} from '../src/bindings';
import type { Settings } from '../src/lib/settings';

/** A generator with a seed, so that every run shows the same. */
export function random(seed: number) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 4_294_967_296;
  };
}

export const id = (number: number) => number.toString(16).padStart(8, '0').repeat(8);
export const NOW = () => Date.now();

export const names = [
  'Mira', 'Jonas', 'Aylin', 'Tom “Rocket” Weber', 'Sofía', 'Kenji', 'Lena', 'Obi', 'Freya', 'Mateo', 'Priya', 'Max', 'Chiara', 'Noah',
];
export const hardNames = [
  'Mira', 'محمد عبد الرحمن', 'שירה לוי', '小林さくら', 'Wolfeschlegelsteinhausenbergerdo', 'O', 'Łukasz Żółć', '🦊 Fuchs', 'مهسا', 'A very long name with words in it',
];

const attempt = (method: Attempt['method'], outcome: Attempt['outcome'], took_ms: number, note = ''): Attempt => ({
  method, outcome, took_ms, note,
});

function why(kind: PathKind): Attempt[] {
  const list = [attempt('relay_udp', 'worked', 84, 'Used until something better was found.')];
  if (kind === 'lan') return [attempt('lan', 'worked', 6, 'Both are on 192.168.1.0/24.'), ...list];
  list.unshift(attempt('lan', 'no_answer', 900, 'Not on the same network.'));
  if (kind === 'direct_v6') return [...list, attempt('ipv6', 'worked', 61)];
  list.push(attempt('ipv6', 'impossible', 0, 'This network has no IPv6.'));
  if (kind === 'mapped') return [...list, attempt('mapped', 'worked', 58, 'The router opened port 41641 by UPnP.')];
  list.push(attempt('mapped', 'impossible', 0, 'Neither router opens ports.'));
  if (kind === 'direct') return [...list, attempt('punch', 'worked', 143, 'The third check came back.')];
  list.push(attempt('punch', 'no_answer', 4200, 'Their router changes ports for every friend.'));
  list.push(attempt('spray', 'no_answer', 9800, '243 ports were tried.'));
  if (kind === 'member_relay') list.push(attempt('member_relay', 'worked', 210));
  return list;
}

const kinds: PathKind[] = ['direct', 'lan', 'relay', 'direct_v6', 'mapped', 'member_relay', 'direct'];
const badges: Badge[] = ['port_restricted', 'full_cone', 'symmetric', 'open', 'restricted', 'udp_blocked'];
const base: Record<PathKind, number> = { lan: 1, direct_v6: 17, mapped: 24, direct: 31, member_relay: 58, relay: 74, overlay: 40 };

export function quality(rtt: number, loss: number, at: number, kind: PathKind): Quality {
  const score = Math.max(5, Math.min(100, Math.round(104 - rtt * 0.55 - loss * 900)));
  const grade: Grade = score >= 85 ? 'excellent' : score >= 65 ? 'good' : score >= 40 ? 'fair' : 'poor';
  return {
    rtt_ms: rtt, jitter_ms: rtt * 0.07, loss, score, grade, trend: loss > 0.02 ? 'worse' : 'steady', p50_ms: rtt * 0.97,
    p95_ms: rtt * 1.25, max_ms: rtt * 1.6, latest: { at_ms: at, rtt_ms: rtt, path: kind },
  };
}

const unmeasured: Quality = {
  rtt_ms: null, jitter_ms: null, loss: null, score: null, grade: null, trend: null, p50_ms: null, p95_ms: null, max_ms: null, latest: null,
};

function path(kind: PathKind, via: string | null): PathView {
  const relayed = kind === 'relay';
  return {
    kind, remote: kind === 'direct_v6' ? '[2001:db8:42::7]:41641' : '203.0.113.27:41641', relay: relayed ? 'Frankfurt' : null,
    via: kind === 'member_relay' ? via : null, age_s: 1843, handshake_s: 47, why: why(kind),
  };
}

export const quiet: MemberNotices = { broadcasts_dropped: null, range_clash: null, copied: false, no_hairpin: null };

export function member(index: number, name: string, overrides: Partial<MemberView> = {}): MemberView {
  const me = index === 0;
  const kind = kinds[index % kinds.length] ?? 'direct';
  const now = Math.floor(NOW() / 1000);
  const online = me || index % 6 !== 5;
  const rtt = (base[kind] ?? 30) * (1 + (index % 5) * 0.14);
  const loss = index % 7 === 2 ? 0.031 : 0;
  return {
    id: id(index + 17), name, role: me ? 'owner' : index === 2 ? 'co_owner' : 'member', me, confirmed: true, online,
    invite: id(8000 + (me ? 99 : Math.floor(index / 3))), joined_at: now - 86_400 * (index + 1),
    address: `10.86.${Math.floor((index * 37 + 12) / 250)}.${((index * 37 + 12) % 250) + 2}`, address_v6: `fd5e:8c1:22a::${(index + 17).toString(16)}`,
    badge: badges[index % badges.length] ?? null,
    path: me || !online ? null : path(kind, id(18)),
    quality: me || !online ? unmeasured : quality(rtt, loss, NOW(), kind),
    traffic: me || !online
      ? { received_bytes: 0, sent_bytes: 0, dropped: 0, receiving: 0, sending: 0 }
      : { received_bytes: 48_200_000 / (index + 1), sent_bytes: 12_900_000 / (index + 1), dropped: index === 2 ? 14 : 0, receiving: 34_500 / (index + 1), sending: 12_300 / (index + 1) },
    history: me ? [] : [{ at: now - 1900, kind: 'relay' }, { at: now - 1843, kind }],
    notices: quiet,
    ...overrides,
  };
}

export function party(number: number, name: string, members: MemberView[], overrides: Partial<PartyView> = {}): PartyView {
  const now = Math.floor(NOW() / 1000);
  const role: Role = members.find((entry) => entry.me)?.role ?? 'member';
  return {
    id: id(number + 4096), name, phase: 'up', role, range: '10.86.0.0/24', range_requested: false, incoming: { level: 'games', allowed: [], blocked: [] }, interface: 'party0', members,
    invites: role === 'member' ? [] : [{ id: id(9001), expires: now + 81_000, used: 3, uses: 10, role: 'member' }], approval: false, join_requests: [], waits_for: null,
    servers: [{ url: 'wss://play.example.org', connected: true, problem: null }], discovery: null, problem: null, ...overrides,
  };
}

export function many(count: number, list: readonly string[] = names): MemberView[] {
  return Array.from({ length: count }, (_, index) => {
    const name = list[index % list.length] ?? 'Ann';
    return member(index, index < list.length ? name : `${name} ${Math.floor(index / list.length) + 1}`);
  });
}

export const settings: Settings = {
  display_name: 'Mira', servers: ['wss://play.example.org'], relays: [], nat_detection: true, port_mapping: true, direct: true, relay: true,
  methods: { lan: true, ipv6: true, mapped: true, punch: true, predict: true, spray: true, member_relay: true }, serve_friends: true, lan_beacon: true,
  dht: true, bootstrap: ['dht.libtorrent.org:25401', 'dht.transmissionbt.com:6881', 'router.bt.ouinet.work:6881'],
  port: 0, direct_timeout_s: 5, mtu: 1400,
};

export const network: NetworkView = {
  nat: {
    mapping: 'endpoint_independent', filtering: 'address_and_port_dependent', allocation: 'preserving', public: ['198.51.100.23', '2001:db8:17::42'],
    udp_blocked: false, double_nat: false, hairpin: false, lifetime: { secs: 120, nanos: 0 }, carrier_nat: false, ipv6: true,
    firewall_v6: 'address_and_port_dependent',
  },
  badge: 'port_restricted', port: 41641,
  report: {
    enabled: true, running: false,
    steps: (['address', 'filtering', 'mapping', 'allocation', 'hairpin', 'ipv6', 'lifetime'] as const).map((what) => ({ what, state: 'known' })),
    servers: [
      { name: 'Frankfurt', address: '203.0.113.1:3478', rtt_ms: 14, reflexive: '198.51.100.23:41641', two_addresses: true, silent: false },
      { name: 'Helsinki', address: '203.0.113.2:3478', rtt_ms: 38, reflexive: '198.51.100.23:41641', two_addresses: false, silent: false },
      { name: 'Virginia', address: '203.0.113.3:3478', rtt_ms: 97, reflexive: '198.51.100.23:41641', two_addresses: false, silent: false },
      { name: 'stun.example.net', address: '203.0.113.4:3478', rtt_ms: null, reflexive: null, two_addresses: false, silent: true },
    ],
    router: [
      { protocol: 'PCP', works: false, problem: 'The router did not answer.' },
      { protocol: 'NAT-PMP', works: false, problem: 'The router did not answer.' },
      { protocol: 'UPnP', works: true, problem: null },
    ],
    gaps: [], confidence: 'high', measured_at: Math.floor(NOW() / 1000) - 340, took_ms: 1840, packets: 46,
  },
};

export const errors = {
  service: {
    code: 'service_unreachable', message: 'The Partyline service is not running.', hint: 'Start it, and your parties come back by themselves.',
  },
  server: {
    code: 'server_unreachable', message: 'play.example.org cannot be reached.', hint: 'Check your internet connection; it is tried again by itself.',
  },
  hairpin: {
    code: 'server_no_hairpin',
    message: 'The address of the server wss://play.example.org is this network’s own public one, and the router here does not route connections to it back inside (no hairpinning, RFC 4787, section 6).',
    hint: 'If the server is in this network, give its name the server’s LAN address, in the router’s DNS (split DNS) or in this computer’s hosts file, or switch on NAT loopback in the router.',
  },
  private: {
    code: 'server_private',
    message: 'The server ws://192.168.178.20:4480 is at 192.168.178.20, which is no address of the Internet. The party’s link or owner named it, and you have not confirmed it, so it is not used: it could be another device of your network.',
    hint: 'If it is yours or a friend’s, on this network, confirm it with `partyline trust ws://192.168.178.20:4480`.',
  },
  range: {
    code: 'range_conflict', message: 'The party’s addresses 10.86.0.0/24 are in use on your local network.', hint: 'Move the party to another range.',
  },
  copy: {
    code: 'duplicate_identity', message: 'Another computer is in Friday Night with the same keys.',
    hint: 'This one is a copy and stands back: make it a member of its own, or switch the other one off and try again.',
  },
} satisfies Record<string, AppError>;

export function snapshot(parties: PartyView[], overrides: Partial<Snapshot> = {}): Snapshot {
  return { revision: 1, phase: 'ready', device: { id: id(17), version: '0.1.0' }, parties, former_parties: [], network, settings, ...overrides };
}
