// A browser on the mock build. No test waits for a time; all wait for what they need to see.
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type BrowserContext, type Page } from 'playwright-core';
import { preview, type PreviewServer } from 'vite';

export const OUT = join(import.meta.dirname, 'out');

export interface View {
  scenario: string;
  width?: number;
  height?: number;
  theme?: 'dark' | 'light';
  lang?: 'en' | 'de' | 'zh';
  /** Snapshots per second. */
  rate?: number;
  /** A script that runs before the page's own. */
  init?: string;
  /** A system whose habits count instead of this one's. */
  system?: 'mac' | 'windows';
  /** Size of text, in pixels for one rem. */
  text?: number;
}

const programs = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

const agents = {
  mac: 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)',
  windows: 'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0',
};

/** Chromium and a server for `dist-mock`. */
export class Stage {
  private constructor(
    private readonly server: PreviewServer,
    private readonly context: BrowserContext,
    private readonly profile: string,
    private readonly url: string,
  ) {}

  static async open(): Promise<Stage> {
    const executablePath = programs.find((path) => path && existsSync(path));
    if (!executablePath) throw new Error('No Chromium found; name one in CHROMIUM.');
    mkdirSync(OUT, { recursive: true });
    const root = join(import.meta.dirname, '..');
    const server = await preview({ root, mode: 'mock', build: { outDir: 'dist-mock' }, preview: { port: 0, host: '127.0.0.1' } });
    const url = server.resolvedUrls?.local[0] ?? '';
    const profile = mkdtempSync(join(tmpdir(), 'partyline-ui-'));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath,
      headless: true,
      chromiumSandbox: false,
      viewport: null,
      reducedMotion: 'reduce',
      args: [
        '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
        '--disable-sync', '--force-color-profile=srgb',
      ],
    });
    // A busy machine is slow, not broken.
    context.setDefaultTimeout(120_000);
    return new Stage(server, context, profile, url);
  }

  /** A page in the given state, shown and settled. What it logs as an error is collected in `problems`. */
  async show({ scenario, width = 1280, height = 800, theme = 'dark', lang = 'en', rate = 0, init, text, system }: View): Promise<Page & { problems: string[] }> {
    const page = Object.assign(await this.context.newPage(), { problems: [] as string[] });
    page.on('pageerror', (error) => page.problems.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') page.problems.push(message.text());
    });
    await page.setViewportSize({ width, height });
    if (system) {
      await page.addInitScript(`Object.defineProperty(navigator, 'userAgent', { value: ${JSON.stringify(agents[system])} })`);
    }
    if (init) await page.addInitScript(init);
    await page.goto(`${this.url}?${new URLSearchParams({ scenario, theme, lang, rate: String(rate) })}`);
    await page.locator('main').waitFor();
    if (text) await page.addStyleTag({ content: `html { font-size: ${text}px !important }` });
    await page.evaluate(async () => {
      await document.fonts.ready;
    });
    return page;
  }

  async close() {
    await this.context.close();
    await this.server.close();
    rmSync(this.profile, { recursive: true, force: true });
  }
}

/** Waits until what has changed is drawn. */
export async function settled(page: Page) {
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
}

/** What a screenshot needs besides the first view: where to go from there. */
export type Step = (page: Page) => Promise<void>;

export const openParty: Step = async (page) => {
  await page.locator('nav ul [data-item]').first().click();
  await page.getByRole('grid').or(page.getByRole('status', { name: /./ })).first().waitFor();
};
