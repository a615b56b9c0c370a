// Every screen in every state: no error, nothing that axe objects to, no sideways scrolling; pictures of all for the eye.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OUT, Stage } from './harness';
import { views } from './views';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const sizes = [
  { width: 720, height: 480 },
  { width: 1280, height: 800 },
  { width: 2560, height: 1440 },
];
/** `VIEWS=party8,invite SIZES=1280` draws some of them only. */
const wanted = process.env.VIEWS?.split(',');
const widths = process.env.SIZES?.split(',').map(Number);
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

/** Elements that stick out of the window sideways. */
const overflow = (page: Page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

describe.each(names)('%s', (name) => {
  const view = views[name];
  if (!view) return;
  it.each(['dark', 'light'] as const)('in %s', async (theme) => {
    for (const size of sizes.filter(({ width }) => !widths || widths.includes(width))) {
      const page = await stage.show({ scenario: view.scenario, theme, ...size });
      await view.go(page);
      await page.screenshot({ path: join(OUT, `${name}-${theme}-${size.width}.png`) });
      expect.soft(page.problems, `${name} at ${size.width}: console`).toEqual([]);
      expect.soft(await overflow(page), `${name} at ${size.width}: overflow`).toBe(0);
      if (size.width < 2000) expect.soft(await violations(page), `${name} at ${size.width}: axe`).toEqual([]);
      await page.close();
    }
  });
});
