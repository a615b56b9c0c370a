// The shapes of the engine words that bindings.ts does not hold yet.
import { invoke } from '@tauri-apps/api/core';
import { listen, type EventCallback } from '@tauri-apps/api/event';

export type Result<T> = { status: 'ok'; data: T } | { status: 'error'; error: AppError };
async function typed<T>(promise: Promise<T>): Promise<Result<T>> {
  try {
    return { status: 'ok', data: await promise };
  } catch (error) {
    if (error instanceof Error) throw error;
    return { status: 'error', error: error as AppError };
  }
}
export const commands = {
  request: (command: Command) => typed<Reply>(invoke('request', { command })),
  snapshot: () => invoke<Snapshot | null>('snapshot'),
  backing: () => invoke<Backing>('backing'),
  startService: () => typed<null>(invoke('start_service')),
  takeLink: () => invoke<string | null>('take_link'),
  clipboardLink: () => invoke<string | null>('clipboard_link'),
  copyText: (text: string) => typed<null>(invoke('copy_text', { text })),
  preferences: () => invoke<Preferences>('preferences'),
  setPreferences: (preferences: Preferences) => typed<null>(invoke('set_preferences', { preferences })),
  openExternal: (url: string) => typed<null>(invoke('open_external', { url })),
  exportSettings: () => typed<string>(invoke('export_settings')),
  importSettings: (text: string) => typed<null>(invoke('import_settings', { text })),
  diagnostics: () => invoke<string>('diagnostics'),
  systemName: () => invoke<string>('system_name'),
  quit: () => invoke<void>('quit'),
};
const event = <T>(name: string) => ({ listen: (callback: EventCallback<T>) => listen(name, callback) });
export const events = {
  snapshotChanged: event<Snapshot>('snapshot-changed'),
  backingChanged: event<Backing>('backing-changed'),
  linkArrived: event<string>('link-arrived'),
  navigate: event<Navigate>('navigate'),
};

export type Navigate = { page: 'home' } | { page: 'party'; party: PartyId };
export type Theme = 'system' | 'dark' | 'light';
export type Language = 'system' | 'en' | 'de' | 'zh';
export type Preferences = {
  theme: Theme;
  language: Language;
  autostart: boolean;
  start_minimised: boolean;
  close_to_tray: boolean;
  notifications: { joins: boolean; connection: boolean };
  hints_seen: string[];
};
export type BackingKind = 'embedded' | 'service' | 'none';
export type Backing = { kind: BackingKind; problem: AppError | null };

export type DeviceId = string;
export type PartyId = string;
export type InviteId = string;
export type Role = 'owner' | 'co_owner' | 'member';
export type Phase = 'starting' | 'ready' | 'stopping';
export type PartyPhase = 'down' | 'connecting' | 'up';
export type Badge = 'open' | 'full_cone' | 'restricted' | 'port_restricted' | 'symmetric' | 'udp_blocked';
export type PathKind = 'lan' | 'direct_v6' | 'mapped' | 'direct' | 'member_relay' | 'relay';
export type Method =
  | 'lan' | 'ipv6' | 'mapped' | 'punch' | 'predict' | 'spray' | 'member_relay' | 'relay_udp' | 'relay_tcp' | 'relay_tls';
export type AttemptOutcome = 'trying' | 'worked' | 'no_answer' | 'impossible';
export type Attempt = { method: Method; outcome: AttemptOutcome; took_ms: number; note: string };
export type Policy = 'endpoint_independent' | 'address_dependent' | 'address_and_port_dependent';
export type Mapping = Policy;
export type Filtering = Policy;
export type Allocation = 'preserving' | { contiguous: { delta: number } } | 'random';
export type Duration = { secs: number; nanos: number };
export type NatProfile = {
  mapping: Mapping | null;
  filtering: Filtering | null;
  allocation: Allocation | null;
  public: string[];
  udp_blocked: boolean | null;
  double_nat: boolean | null;
  hairpin: boolean | null;
  lifetime: Duration | null;
  carrier_nat: boolean | null;
  ipv6: boolean | null;
  firewall_v6: Filtering | null;
};
export type Confidence = 'none' | 'low' | 'medium' | 'high';
export type CheckTopic = 'address' | 'filtering' | 'mapping' | 'allocation' | 'hairpin' | 'ipv6' | 'lifetime';
export type StepState = 'waiting' | 'doing' | 'known' | 'unknown';
export type CheckStep = { what: CheckTopic; state: StepState };
export type ServerCheck = {
  name: string; address: string; rtt_ms: number | null; reflexive: string | null; two_addresses: boolean; silent: boolean;
};
export type RouterCheck = { protocol: string; works: boolean; problem: string | null };
export type NetworkReport = {
  enabled: boolean; running: boolean; steps: CheckStep[]; servers: ServerCheck[]; router: RouterCheck[]; gaps: string[];
  confidence: Confidence; measured_at: number | null; took_ms: number; packets: number;
};
export type NetworkView = { nat: NatProfile; badge: Badge | null; port: number; report: NetworkReport };
export type Grade = 'excellent' | 'good' | 'fair' | 'poor';
export type Trend = 'better' | 'steady' | 'worse';
export type Sample = { at_ms: number; rtt_ms: number | null; path: PathKind | null };
export type Quality = {
  rtt_ms: number | null; jitter_ms: number | null; loss: number | null; score: number | null; grade: Grade | null;
  trend: Trend | null; p50_ms: number | null; p95_ms: number | null; max_ms: number | null; latest: Sample | null;
};
export type TrafficView = {
  received_bytes: number; sent_bytes: number; dropped: number; receiving: number; sending: number;
};
export type PathEvent = { at: number; kind: PathKind | null };
export type PathView = {
  kind: PathKind; remote: string; relay: string | null; via: DeviceId | null; age_s: number; handshake_s: number | null;
  why: Attempt[];
};
export type MemberView = {
  id: DeviceId; name: string; role: Role; me: boolean; confirmed: boolean; online: boolean; address: string | null;
  address_v6: string | null; badge: Badge | null; path: PathView | null; quality: Quality; traffic: TrafficView;
  history: PathEvent[];
};
export type ServerView = { url: string; connected: boolean; problem: AppError | null };
export type InviteView = { id: InviteId; expires: number | null; role: Role };
export type PartyView = {
  id: PartyId; name: string; phase: PartyPhase; role: Role; range: string | null; interface: string | null;
  members: MemberView[]; invites: InviteView[]; servers: ServerView[]; problem: AppError | null;
};
export type RelaySetting = { url: string; username: string; password: string };
export type Methods = {
  lan: boolean; ipv6: boolean; mapped: boolean; punch: boolean; predict: boolean; spray: boolean; member_relay: boolean;
};
export type Settings = {
  display_name: string; servers: string[]; relays: RelaySetting[]; nat_detection: boolean; port_mapping: boolean;
  direct: boolean; relay: boolean; methods: Methods; serve_friends: boolean; port: number; direct_timeout_s: number;
  mtu: number;
};
export type Snapshot = {
  revision: number; phase: Phase; device: { id: DeviceId; version: string }; parties: PartyView[]; network: NetworkView;
  settings: Settings;
};
export type InviteLifetime = 'hour' | 'day' | 'week' | 'never';
export type InvitePreview = {
  party: PartyId; name: string; expires: number | null; role: Role; servers: string[]; member: boolean;
};
export type Verdict = 'good' | 'fair' | 'bad';
export type DoctorFinding = { what: string; verdict: Verdict; note: string };
export type Command =
  | { command: 'snapshot' }
  | { command: 'create'; name: string; display_name: string; servers: string[]; range: string | null }
  | { command: 'preview'; link: string }
  | { command: 'join'; link: string; display_name: string }
  | { command: 'invite'; party: PartyId; lifetime: InviteLifetime; role: Role }
  | { command: 'revoke'; party: PartyId; invite: InviteId }
  | { command: 'leave'; party: PartyId }
  | { command: 'kick'; party: PartyId; member: DeviceId }
  | { command: 'up'; party: PartyId }
  | { command: 'down'; party: PartyId }
  | { command: 'set_range'; party: PartyId; range: string }
  | { command: 'ping'; party: PartyId; member: DeviceId }
  | { command: 'samples'; party: PartyId; member: DeviceId }
  | { command: 'netcheck'; stun: string[] }
  | { command: 'configure'; settings: Settings }
  | { command: 'doctor' }
  | { command: 'stop' };
export type Reply =
  | { reply: 'snapshot'; value: Snapshot }
  | { reply: 'created'; value: { party: PartyId; link: string } }
  | { reply: 'joined'; value: { party: PartyId } }
  | { reply: 'invite'; value: { link: string } }
  | { reply: 'preview'; value: InvitePreview }
  | { reply: 'pong'; value: { rtt_ms: number } }
  | { reply: 'samples'; value: Sample[] }
  | { reply: 'doctor'; value: DoctorFinding[] }
  | { reply: 'done' };
export type ErrorCode =
  | 'invite_malformed' | 'invite_version' | 'invite_expired' | 'invite_revoked' | 'invite_forged' | 'removed'
  | 'already_member' | 'not_owner' | 'unknown_party' | 'unknown_member' | 'party_full' | 'range_conflict'
  | 'invalid_input' | 'permission_denied' | 'already_running' | 'service_unreachable' | 'version_mismatch'
  | 'server_unreachable' | 'server_certificate' | 'storage' | 'device' | 'timeout' | 'internal';
export type AppError = { code: ErrorCode; message: string; hint: string };
