// What a person can do about the network, in words; the engine measures, this only reads.
import type { NetworkView } from '../bindings';
import type { Key } from '../i18n/index.svelte';

export interface Advice {
  key: Key;
  good: boolean;
}

/** Advice for a network, most helpful first; says so when there is nothing to do. */
export function advice({ nat, badge, report }: NetworkView): Advice[] {
  const list: Advice[] = [];
  const mapped = report.router.some((router) => router.works);
  if (!report.enabled) list.push({ key: 'advice.detection', good: false });
  if (nat.udp_blocked) list.push({ key: 'advice.udp', good: false });
  if (badge === 'symmetric') list.push({ key: mapped ? 'advice.symmetric_mapped' : 'advice.symmetric', good: mapped });
  if (nat.carrier_nat) list.push({ key: nat.ipv6 ? 'advice.carrier_ipv6' : 'advice.carrier', good: nat.ipv6 === true });
  else if (nat.double_nat) list.push({ key: 'advice.double', good: false });
  if (!mapped && report.router.length > 0 && badge !== 'open' && !nat.carrier_nat && !nat.udp_blocked) {
    list.push({ key: 'advice.upnp', good: false });
  }
  if (list.length === 0 && badge) list.push({ key: 'advice.fine', good: true });
  return list;
}

/** The network in a sentence. A check that is over and has no word for the network says why, and does not ask for another. */
export function meaning({ nat, badge, report }: NetworkView): Key {
  if (badge) return `badge.${badge}.sentence`;
  if (report.running) return 'network.checking';
  if (report.measured_at == null) return 'network.unknown.sentence';
  return nat.public.length > 0 ? 'network.partly.sentence' : 'network.silent.sentence';
}

/** Returns the report as plain text, to send to somebody who helps. */
export function report({ nat, badge, port, report }: NetworkView): string {
  const allocation = typeof nat.allocation === 'object' && nat.allocation ? `contiguous ${nat.allocation.contiguous.delta}` : nat.allocation;
  const lines = [
    `Network: ${badge ?? 'unknown'} (confidence: ${report.confidence})`,
    `Mapping: ${nat.mapping ?? 'unknown'}; filtering: ${nat.filtering ?? 'unknown'}; allocation: ${allocation ?? 'unknown'}`,
    `Public: ${nat.public.join(', ') || 'unknown'}; port: ${port}`,
    `UDP blocked: ${nat.udp_blocked}; double NAT: ${nat.double_nat}; carrier NAT: ${nat.carrier_nat}; hairpin: ${nat.hairpin}`,
    `IPv6: ${nat.ipv6}; firewall: ${nat.firewall_v6 ?? 'unknown'}; mapping lifetime: ${nat.lifetime ? `${nat.lifetime.secs} s` : 'unknown'}`,
    ...report.router.map((router) => `${router.protocol}: ${router.works ? 'works' : (router.problem ?? 'no answer')}`),
    ...report.servers.map((server) => `${server.name} (${server.address}): ${server.silent ? 'silent' : `${server.rtt_ms} ms`}`),
    ...report.gaps.map((gap) => `Not measured: ${gap}`),
    `Took ${report.took_ms} ms, ${report.packets} packets.`,
  ];
  return lines.join('\n');
}
