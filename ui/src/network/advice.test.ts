import { describe, expect, it } from 'vitest';
import { snapshot } from '../../mock/world';
import { meaning } from './advice';

describe('a network without a badge', () => {
  const { network } = snapshot([]);
  const seen = (running: boolean, measured_at: number | null, addresses: string[]) =>
    meaning({ ...network, badge: null, nat: { ...network.nat, public: addresses }, report: { ...network.report, running, measured_at } });

  it('asks for a check only as long as there was none', () => {
    expect(seen(false, null, [])).toBe('network.unknown.sentence');
    expect(seen(true, null, [])).toBe('network.checking');
    expect(seen(true, 1_790_000_000, ['11.0.0.1'])).toBe('network.checking');
    expect(seen(false, 1_790_000_000, ['11.0.0.1'])).toBe('network.partly.sentence');
    expect(seen(false, 1_790_000_000, [])).toBe('network.silent.sentence');
  });
});
