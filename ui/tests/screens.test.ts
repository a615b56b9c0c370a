// Every screen in every state: no error, nothing that axe objects to, no sideways scrolling; pictures of all for the eye.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OUT, settled, Stage } from './harness';
import { views } from './views';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const sizes = [
  { width: 1280, height: 800 },
  { width: 720, height: 480 },
  { width: 2560, height: 1440 },
];
/** `VIEWS=party8,invite` draws some of them only. */
const wanted = process.env.VIEWS?.split(',');
const names = Object.keys(views).filter((name) => !wanted || wanted.includes(name));

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(async () => {
  await stage.close();
});

interface Finding {
  id: string;
  nodes: { html: string; failureSummary: string }[];
}

async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: { run: (options: object) => Promise<{ violations: Finding[] }> } };
    return (await axe.run({ resultTypes: ['violations'] })).violations;
  });
  return found.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}\n  ${node.failureSummary}`));
}

/** By how much the page is wider than the window. */
const overflow = (page: Page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

describe.each(names)('%s', (name) => {
  const view = views[name];
  if (!view) return;
  it.each(['dark', 'light'] as const)('in %s', async (theme) => {
    const page = await stage.show({ scenario: view.scenario, theme });
    await view.go(page);
    for (const size of sizes) {
      await page.setViewportSize(size);
      await settled(page);
      await page.screenshot({ path: join(OUT, `${name}-${theme}-${size.width}.png`) });
      expect.soft(await overflow(page), `${name} at ${size.width}: overflow`).toBe(0);
      // What is hidden or shown by size is checked in one theme, colours in both.
      if (size.width === 1280 || (size.width === 720 && theme === 'dark')) {
        expect.soft(await violations(page), `${name} at ${size.width}: axe`).toEqual([]);
      }
    }
    expect.soft(page.problems, `${name}: console`).toEqual([]);
    await page.close();
  });
});
