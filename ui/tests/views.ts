// Every screen in every state, by name: how to get there from the start.
import { openParty, settled, type Step } from './harness';

const click = (name: string): Step => async (page) => page.getByRole('button', { name }).first().click();
const steps = (...list: Step[]): Step => async (page) => {
  for (const step of list) await step(page);
  await settled(page);
};
const focusRow = (index: number): Step => async (page) => page.locator(`[data-row="${index}"]`).click({ position: { x: 200, y: 12 } });
const nav = (name: RegExp): Step => async (page) => page.locator('nav').getByRole('button', { name }).click();
const tab = (index: number): Step => async (page) => page.getByRole('tab').nth(index).click();
const past: Step = async (page) => {
  await page.getByRole('radio', { name: '1 h' }).click();
  await page.waitForFunction(() => (window as unknown as { mock: { asked: { args: { command?: { command: string } } }[] } }).mock.asked.some((one) => one.args.command?.command === 'samples'));
  await page.waitForFunction(() => Number(document.querySelector<HTMLElement>('[data-drawn]')?.dataset.drawn) > 1);
};

export const views: Record<string, { scenario: string; go: Step }> = {
  welcome: { scenario: 'welcome', go: steps() },
  starting: { scenario: 'starting', go: steps() },
  'service-gone': { scenario: 'service_gone', go: steps() },
  'home-empty': { scenario: 'empty', go: steps() },
  'home-clipboard': { scenario: 'clipboard', go: steps() },
  home: { scenario: 'party8', go: steps() },
  'home-service-lost': { scenario: 'service_lost', go: steps() },
  create: { scenario: 'empty', go: steps(nav(/^Create/)) },
  'join-paste': { scenario: 'empty', go: steps(nav(/^Join/)) },
  'join-preview': { scenario: 'deep_link', go: steps(async (page) => page.getByRole('heading', { name: /^Join Friday/ }).waitFor()) },
  party8: { scenario: 'party8', go: steps(openParty, past) },
  'party-member': { scenario: 'party8', go: steps(openParty, past, focusRow(2)) },
  'party-relayed': { scenario: 'party8', go: steps(openParty, focusRow(1)) },
  'party-me': { scenario: 'party8', go: steps(openParty, focusRow(0)) },
  alone: { scenario: 'alone', go: steps(openParty) },
  alone_blocked: { scenario: 'alone_blocked', go: steps(openParty) },
  connecting: { scenario: 'connecting', go: steps(openParty) },
  reaching: { scenario: 'reaching', go: steps(openParty) },
  down: { scenario: 'down', go: steps(openParty) },
  party250: { scenario: 'party250', go: steps(openParty, past) },
  'party250-chosen': { scenario: 'party250', go: steps(openParty, past, focusRow(2), click('Keep in chart'), focusRow(4)) },
  names: { scenario: 'names', go: steps(openParty, past, focusRow(4)) },
  guest: { scenario: 'guest', go: steps(openParty) },
  'server-gone': { scenario: 'server_gone', go: steps(openParty) },
  'server-at-home': { scenario: 'server_at_home', go: steps(openParty) },
  'server-private': { scenario: 'server_private', go: steps(openParty) },
  'server-confirmed': { scenario: 'server_private', go: steps(openParty, click('Connect anyway'), async (page) => page.getByText('Connect anyway').waitFor({ state: 'detached' })) },
  'range-conflict': { scenario: 'range_conflict', go: steps(openParty) },
  'range-clash': { scenario: 'range_clash', go: steps(openParty) },
  'range-asked': { scenario: 'range_clash', go: steps(openParty, click('Ask the owner'), async (page) => page.getByText('The owner is asked').waitFor()) },
  'range-request': { scenario: 'range_asked', go: steps(openParty) },
  storm: { scenario: 'storm', go: steps(openParty) },
  'shared-router': { scenario: 'shared_router', go: steps(openParty, focusRow(1)) },
  'shared-carrier': { scenario: 'shared_carrier', go: steps(openParty, focusRow(1)) },
  copied: { scenario: 'copied', go: steps(openParty) },
  copy: { scenario: 'copy', go: steps(openParty) },
  'copy-identity': { scenario: 'copy', go: steps(openParty, click('New identity'), async (page) => page.getByRole('alertdialog').waitFor()) },
  former: { scenario: 'former', go: steps() },
  unconfirmed: { scenario: 'unconfirmed', go: steps(openParty, focusRow(1)) },
  approval: { scenario: 'approval', go: steps(openParty) },
  awaiting: { scenario: 'awaiting', go: steps(openParty) },
  declined: { scenario: 'declined', go: steps(openParty) },
  menu: { scenario: 'party8', go: steps(openParty, click('More for this party')) },
  invite: { scenario: 'party8', go: steps(openParty, click('Invite'), async (page) => page.getByText('The link is on your clipboard.').waitFor()) },
  invites: { scenario: 'party8', go: steps(openParty, click('More for this party'), async (page) => page.getByRole('menuitem', { name: 'Open invites' }).click()) },
  range: { scenario: 'party8', go: steps(openParty, click('More for this party'), async (page) => page.getByRole('menuitem', { name: 'Change addresses' }).click()) },
  reach: { scenario: 'party8', go: steps(openParty, click('More for this party'), async (page) => page.getByRole('menuitem', { name: 'What friends can reach' }).click(), async (page) => page.getByText('srcds_linux').waitFor()) },
  leave: { scenario: 'party8', go: steps(openParty, click('More for this party'), async (page) => page.getByRole('menuitem', { name: 'Leave party' }).click()) },
  kick: { scenario: 'party8', go: steps(openParty, focusRow(2), click('Remove')) },
  shortcuts: { scenario: 'party8', go: steps(async (page) => page.keyboard.press('?')) },
  network: { scenario: 'party8', go: steps(nav(/^Your network/)) },
  'network-checking': { scenario: 'checking', go: steps(nav(/^Your network/)) },
  'network-strict': { scenario: 'strict', go: steps(nav(/^Your network/)) },
  'network-blocked': { scenario: 'blocked', go: steps(nav(/^Your network/)) },
  'settings-general': { scenario: 'party8', go: steps(nav(/^Settings/)) },
  'settings-connection': { scenario: 'party8', go: steps(nav(/^Settings/), tab(1)) },
  'settings-servers': { scenario: 'party8', go: steps(nav(/^Settings/), tab(2)) },
  'settings-servers-tried': { scenario: 'servers', go: steps(nav(/^Settings/), tab(2), click('Test wss://play'), click('Test wss://gone'), async (page) => page.getByText('refused the connection').waitFor()) },
  'settings-data': { scenario: 'party8', go: steps(nav(/^Settings/), tab(3), click('Run check-up'), async (page) => page.getByText('Network device.').waitFor()) },
  'settings-export': { scenario: 'party8', go: steps(nav(/^Settings/), tab(3), click('Export'), async (page) => page.getByRole('dialog').waitFor()) },
  'settings-import': { scenario: 'party8', go: steps(nav(/^Settings/), tab(3), click('Import'), async (page) => page.getByRole('dialog').waitFor()) },
  'settings-about': { scenario: 'party8', go: steps(nav(/^Settings/), tab(4)) },
};
