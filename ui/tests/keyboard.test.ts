// The whole way through the app with nothing but keys: first start, create, invite, join, remove a member, settings.
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { settled, Stage } from './harness';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(async () => {
  await stage.close();
});

/** What the focused element is called. */
const focused = (page: Page) =>
  page.evaluate(() => {
    const element = document.activeElement;
    const labels = element instanceof HTMLInputElement ? [...(element.labels ?? [])].map((label) => label.textContent) : [];
    return [element?.getAttribute('aria-label'), ...labels, element?.textContent].filter(Boolean).join(' ').replace(/\s+/g, ' ').trim();
  });

/** Presses Tab until something of that name has the focus; each stop must show that it has it. */
async function tabTo(page: Page, name: RegExp) {
  for (let stop = 0; stop < 40; stop += 1) {
    if (name.test(await focused(page))) return;
    await page.keyboard.press('Tab');
    const seen = await page.evaluate(() => {
      const style = document.activeElement && getComputedStyle(document.activeElement);
      return document.activeElement === document.body || (style?.outlineStyle !== 'none' && style?.outlineWidth !== '0px');
    });
    expect.soft(seen, `focus is visible on "${await focused(page)}"`).toBe(true);
  }
  throw new Error(`Tab never reached ${name}; last was "${await focused(page)}"`);
}

const asked = (page: Page) =>
  page.evaluate(() =>
    (window as unknown as { mock: { asked: { name: string; args: { command?: { command: string } } }[] } }).mock.asked.map(
      ({ name, args }) => args.command?.command ?? name,
    ),
  );

it('gets from the first start into a party of one’s own', async () => {
  const page = await stage.show({ scenario: 'welcome' });
  expect(await focused(page)).toMatch(/What do friends call you/);
  await page.waitForFunction(() => document.querySelector('input')?.value === 'Mira');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Hello, Mira' }).waitFor();

  await page.keyboard.press('Control+n');
  await page.getByRole('dialog').waitFor();
  expect(await focused(page)).toMatch(/Name of the party/);
  await page.keyboard.type('Friday');
  await page.keyboard.press('Enter');
  await page.getByText('The link is on your clipboard.').waitFor();
  await tabTo(page, /^Good for|^1 day/);
  await page.keyboard.press('ArrowRight');
  await page.getByText('7 days').and(page.locator('[data-state="checked"]')).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('heading', { name: 'Friday', level: 1 }).waitFor();
  expect(await asked(page)).toEqual(expect.arrayContaining(['configure', 'create', 'copy_text', 'invite']));
  expect(page.problems).toEqual([]);
  await page.close();
});

it('joins with a link', async () => {
  const page = await stage.show({ scenario: 'empty' });
  await page.keyboard.press('Control+j');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.type('partyline://join/expired');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').getByText('Ask Jonas for a new one.').waitFor();
  await tabTo(page, /^Use another link/);
  await page.keyboard.press('Enter');
  await tabTo(page, /^Invite link/);
  await page.keyboard.type('partyline://join/abc');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Join Friday Night as Mira?' }).waitFor();
  await page.waitForFunction(() => document.activeElement?.textContent?.trim() === 'Join');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Friday Night', level: 1 }).waitFor();
  expect(await asked(page)).toContain('join');
  expect(page.problems).toEqual([]);
  await page.close();
});

it('walks through the members and removes one', async () => {
  const page = await stage.show({ scenario: 'party250' });
  await page.keyboard.press('Control+1');
  await page.getByRole('grid').waitFor();
  await tabTo(page, /^M Mira|^Mira/);
  await page.keyboard.press('End');
  await page.waitForFunction(() => document.activeElement?.getAttribute('data-row') === '249');
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowDown');
  await page.waitForFunction(() => document.activeElement?.getAttribute('data-row') === '1');
  await page.keyboard.press('c');
  await page.getByText('is on the clipboard').waitFor();
  await page.keyboard.press('ArrowDown');
  await page.waitForFunction(() => document.activeElement?.getAttribute('data-row') === '2');
  await page.keyboard.press('Enter');
  await page.getByRole('complementary', { name: /^Details of/ }).waitFor();
  await tabTo(page, /^Remove/);
  await page.keyboard.press('Enter');
  await page.getByRole('alertdialog').waitFor();
  // The harmless button has the focus, so that Enter pressed twice removes nobody.
  await page.waitForFunction(() => document.activeElement?.textContent?.trim() === 'Cancel');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.getByRole('alertdialog').waitFor({ state: 'detached' });
  expect(await asked(page)).toContain('kick');
  expect(await page.getByRole('grid').getAttribute('aria-rowcount')).toBe('250');
  expect(page.problems).toEqual([]);
  await page.close();
});

it('goes by ⌘ on a Mac, where Ctrl is for other things', async () => {
  const page = await stage.show({ scenario: 'party8', system: 'mac' });
  await page.keyboard.press('Control+n');
  await page.keyboard.press('Meta+,');
  await page.getByRole('heading', { name: 'Settings' }).waitFor();
  await page.keyboard.press('Meta+n');
  await page.getByRole('dialog').waitFor();
  await page.close();
});

it('reads values of the chart', async () => {
  const page = await stage.show({ scenario: 'party8', rate: 5 });
  await page.keyboard.press('Control+1');
  await page.waitForFunction(() => Number(document.querySelector<HTMLElement>('[data-drawn]')?.dataset.drawn) > 2);
  await tabTo(page, /^Latency\./);
  await page.keyboard.press('End');
  await page.keyboard.press('ArrowLeft');
  await page.locator('[role=status]').filter({ hasText: /\d ms/ }).first().waitFor();
  await page.close();
});

it('changes settings', async () => {
  const page = await stage.show({ scenario: 'party8' });
  await page.keyboard.press('Control+,');
  await tabTo(page, /^General/);
  await page.keyboard.press('ArrowRight');
  await page.getByText('Kinds of connection').waitFor();
  await tabTo(page, /^Relays/);
  await page.keyboard.press('Space');
  await page.getByRole('switch', { name: 'Relays', checked: false }).waitFor();
  await page.keyboard.press('?');
  await page.getByRole('heading', { name: 'Keyboard shortcuts' }).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await settled(page);
  expect(await asked(page)).toContain('configure');
  expect(page.problems).toEqual([]);
  await page.close();
});
