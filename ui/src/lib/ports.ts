// Ports of this computer, and what a switch beside one means.
import type { IncomingLevel, OfferedPort, PortRule, ServicePort } from '../bindings';

/** A port as people write it, such as `tcp/445`. */
export const portName = (port: ServicePort) => `${port.protocol}/${port.port}`;

/** The rule that makes a port reachable or not; none where the level does so by itself. */
export function ruleFor(offered: OfferedPort, reachable: boolean, level: IncomingLevel): PortRule | null {
  const byLevel = level === 'everything' || (level === 'games' && !offered.service);
  if (reachable === byLevel) return null;
  return reachable ? 'allow' : 'block';
}
