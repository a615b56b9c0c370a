import { afterEach, describe, expect, it } from 'vitest';
import { setLanguage } from '../i18n/index.svelte';
import { bytes, initials, millis, ms, percent, rate, span, unknown } from './format';
import { nameProblem, rangeProblem, relayProblem, serverProblem } from './limits';

afterEach(() => setLanguage('en'));

it('writes milliseconds', () => {
  expect([0.44, 9.94, 9.96, 31.4, 1234.5].map(millis)).toEqual(['0.4', '9.9', '10', '31', '1,235']);
  expect([null, undefined, NaN].map(millis)).toEqual([unknown, unknown, unknown]);
  expect(ms(null)).toBe(unknown);
  setLanguage('de');
  expect(ms(1.25)).toBe('1,3 ms');
});

it('writes sizes and rates', () => {
  expect([0, 999, 1000, 9949, 48_200_000, 2.5e12].map(bytes)).toEqual(['0 B', '999 B', '1.0 KB', '9.9 KB', '48 MB', '2.5 TB']);
  expect(rate(-5)).toBe('0 B/s');
});

it('writes shares', () => {
  expect([0, 0.004, 0.031, 0.5, 1].map(percent)).toEqual(['0 %', '0.4 %', '3.1 %', '50 %', '100 %']);
  expect(percent(null)).toBe(unknown);
});

it('writes spans in one or two units', () => {
  expect([0, 59, 61, 600, 3599, 3660, 90_000, 86_400].map(span)).toEqual([
    '0 s', '59 s', '1 min 1 s', '10 min', '59 min', '1 h 1 min', '1 d 1 h', '1 d',
  ]);
});

it('takes initials from letters', () => {
  expect(['Mira', 'Tom “Rocket” Weber', '🦊 Fuchs', 'محمد عبد', '小林さくら', '', '🦊'].map(initials)).toEqual([
    'M', 'TW', 'F', 'مع', '小', '?', '🦊',
  ]);
});

describe('limits', () => {
  it('of names', () => {
    expect(nameProblem('Mira', 32)).toBeNull();
    expect(nameProblem('  ', 32)).not.toBeNull();
    expect(nameProblem('🦊'.repeat(32), 32)).toBeNull();
    expect(nameProblem('x'.repeat(33), 32)).not.toBeNull();
    expect(nameProblem('a\u202Eb', 32)).not.toBeNull();
  });
  it('of ranges', () => {
    for (const good of ['10.86.0.0/24', '172.31.0.0/16', '192.168.7.0/28']) expect(rangeProblem(good)).toBeNull();
    for (const bad of ['10.0.0.0/8', '8.8.8.0/24', '172.32.0.0/24', '10.1.2.999/24', '10.86.0.0', '']) {
      expect(rangeProblem(bad), bad).not.toBeNull();
    }
  });
  it('of servers and relays', () => {
    expect(serverProblem('wss://play.example.org')).toBeNull();
    expect(serverProblem('https://play.example.org')).not.toBeNull();
    expect(relayProblem('turn:relay.example.org:3478?transport=tcp')).toBeNull();
    expect(relayProblem('stun:relay.example.org')).not.toBeNull();
  });
});
