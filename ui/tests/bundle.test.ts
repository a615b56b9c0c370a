// What ships holds no stand-in, and starts where the system has no language (LANG=C).
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'vite';
import { expect, it } from 'vitest';
import { Stage } from './harness';

it('has nothing of the mock in it', async () => {
  const root = join(import.meta.dirname, '..');
  const outDir = join(import.meta.dirname, 'out', 'bundle');
  await build({ root, logLevel: 'silent', build: { outDir, emptyOutDir: true } });
  const scripts = readdirSync(join(outDir, 'assets')).filter((name) => name.endsWith('.js'));
  const all = scripts.map((name) => readFileSync(join(outDir, 'assets', name), 'utf8')).join('\n');
  expect(scripts.length).toBeGreaterThan(0);
  expect(all).toContain('partyline-settings.json');
  for (const word of ['Friday Night', 'mockIPC', 'play.example.org/', '203.0.113']) expect(all).not.toContain(word);
  rmSync(outDir, { recursive: true });
});

it('starts under LANG=C', async () => {
  const stage = await Stage.open();
  const page = await stage.show({ scenario: 'party8', init: "Object.defineProperty(navigator, 'language', { value: 'C', configurable: true });" });
  await page.getByRole('heading', { name: 'Hello, Mira' }).waitFor();
  expect(page.problems).toEqual([]);
  await stage.close();
});
