import { expect, it } from 'vitest';
import type { OfferedPort } from '../bindings';
import { portName, ruleFor } from './ports';

const game: OfferedPort = { port: { protocol: 'udp', port: 27015 }, listening: true, program: 'srcds', service: null, access: 'reachable' };
const login: OfferedPort = { port: { protocol: 'tcp', port: 22 }, listening: true, program: 'sshd', service: 'Remote login (SSH)', access: 'blocked_by_default' };

it('writes ports like everybody', () => {
  expect(portName(game.port)).toBe('udp/27015');
});

it('switches to a rule and back to none', () => {
  expect(ruleFor(game, false, 'games')).toBe('block');
  expect(ruleFor(game, true, 'games')).toBe(null);
  expect(ruleFor(login, true, 'games')).toBe('allow');
  expect(ruleFor(login, false, 'games')).toBe(null);
  expect(ruleFor(login, false, 'everything')).toBe('block');
  expect(ruleFor(game, true, 'nothing')).toBe('allow');
  expect(ruleFor(game, false, 'nothing')).toBe(null);
});
