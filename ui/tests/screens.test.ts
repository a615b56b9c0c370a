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

async function violations(page: Page, rules?: string[]): Promise<string[]> {
  await page.evaluate(axe);
  const found = await page.evaluate(async (rules) => {
    const { axe } = window as unknown as { axe: { run: (options: object) => Promise<{ violations: Finding[] }> } };
    return (await axe.run({ resultTypes: ['violations'], ...(rules ? { runOnly: rules } : {}) })).violations;
  }, rules);
  return found.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}\n  ${node.failureSummary}`));
}

/** By how much the page is wider than the window. */
const overflow = (page: Page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

describe.each(names)('%s', (name) => {
  const view = views[name];
  if (!view) return;
  it('dark and light, small and large', async () => {
    const page = await stage.show({ scenario: view.scenario });
    await view.go(page);
    for (const theme of ['dark', 'light'] as const) {
      await page.evaluate((theme) => (window as unknown as { mock: { theme: (theme: string) => void } }).mock.theme(theme), theme);
      for (const size of sizes) {
        await page.setViewportSize(size);
        await settled(page);
        await page.screenshot({ path: join(OUT, `${name}-${theme}-${size.width}.png`) });
        expect.soft(await overflow(page), `${name} at ${size.width}: overflow`).toBe(0);
        // Themes differ in colours only, and the largest window in nothing but room.
        if (size.width < 2000 && (theme === 'dark' || size.width === 1280)) {
          const rules = theme === 'light' ? ['color-contrast'] : undefined;
          expect.soft(await violations(page, rules), `${name} in ${theme} at ${size.width}: axe`).toEqual([]);
        }
      }
    }
    expect.soft(page.problems, `${name}: console`).toEqual([]);
    await page.close();
  });
});

describe('a window that becomes large and small again', () => {
  /** The size of every text on the page. */
  const lines = (page: Page) =>
    page.evaluate(() => {
      const texts = [...document.querySelectorAll('body *')].filter((element) => [...element.childNodes].some(({ nodeType }) => nodeType === 3));
      return texts.map((element) => `${element.textContent?.slice(0, 24)}: ${getComputedStyle(element).fontSize}`);
    });
  const some = ['party8', 'party250', 'home', 'settings-general'].filter((name) => names.includes(name));
  it('sets text in the same size as before', async () => {
    for (const name of some) {
      const page = await stage.show({ scenario: views[name]?.scenario ?? '' });
      await views[name]?.go(page);
      const before = await lines(page);
      for (const size of [{ width: 2560, height: 1440 }, { width: 1280, height: 800 }]) {
        await page.setViewportSize(size);
        await settled(page);
      }
      expect.soft(await lines(page), name).toEqual(before);
      await page.close();
    }
  });
});

describe('other systems', () => {
  const some = ['party8', 'shortcuts', 'settings-general'].filter((name) => names.includes(name));
  it.each(['mac', 'windows'] as const)('%s', async (system) => {
    for (const name of some) {
      const view = views[name];
      const page = await stage.show({ scenario: view?.scenario ?? '', system });
      await view?.go(page);
      await page.screenshot({ path: join(OUT, `${name}-${system}.png`) });
      const read = await page.locator('body').innerText();
      if (name === 'shortcuts') expect.soft(read.includes('⇧⌘N') && !read.includes('Ctrl')).toBe(system === 'mac');
      if (name === 'settings-general') expect.soft(read.includes('menu bar')).toBe(system === 'mac');
      expect.soft(page.problems).toEqual([]);
      await page.close();
    }
  });
});

describe('other languages and sizes of text', () => {
  const some = ['home', 'party-member', 'invite', 'network-strict', 'settings-general'].filter((name) => names.includes(name));
  // Steps find their buttons by English names, so the language is changed at the end.
  it.each(['de', 'zh'] as const)('%s', async (lang) => {
    for (const name of some) {
      const view = views[name];
      const page = await stage.show({ scenario: view?.scenario ?? '' });
      await view?.go(page);
      await page.evaluate((lang) => (window as unknown as { mock: { speak: (lang: string) => void } }).mock.speak(lang), lang);
      for (const size of sizes.slice(0, 2)) {
        await page.setViewportSize(size);
        await settled(page);
        await page.screenshot({ path: join(OUT, `${name}-${lang}-${size.width}.png`) });
        expect.soft(await overflow(page), `${name} at ${size.width}`).toBe(0);
      }
      expect.soft(page.problems).toEqual([]);
      await page.close();
    }
  });
  it('large text', async () => {
    for (const name of some) {
      const view = views[name];
      const page = await stage.show({ scenario: view?.scenario ?? '', text: 24 });
      await view?.go(page);
      await page.screenshot({ path: join(OUT, `${name}-large.png`) });
      expect.soft(await overflow(page), name).toBe(0);
      await page.close();
    }
  });
});
