// 250 members, ten snapshots a second. What it costs is printed; asserted is only that nothing is lost or piles up.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openParty, Stage } from './harness';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(async () => {
  await stage.close();
});

interface Mock {
  step: () => void;
}

it('keeps up with a full party', async () => {
  const page = await stage.show({ scenario: 'party250' });
  await openParty(page);
  const { frames, work } = await page.evaluate(
    () =>
      new Promise<{ frames: number[]; work: number[] }>((resolve) => {
        const { mock } = window as unknown as { mock: Mock };
        const frames: number[] = [];
        const work: number[] = [];
        let last = performance.now();
        let next = last;
        let sent = 0;
        const frame = (now: number) => {
          frames.push(now - last);
          last = now;
          if (now >= next && sent < 100) {
            const before = performance.now();
            mock.step();
            // The store takes the snapshot at once; what it changes on the page is done by the end of the next task.
            setTimeout(() => work.push(performance.now() - before));
            sent += 1;
            next += 100;
          }
          if (sent < 100) requestAnimationFrame(frame);
          else setTimeout(() => resolve({ frames: frames.slice(1), work }), 200);
        };
        requestAnimationFrame(frame);
      }),
  );
  const sorted = (list: number[]) => [...list].sort((a, b) => a - b);
  const at = (list: number[], share: number) => (sorted(list)[Math.floor((list.length - 1) * share)] ?? 0).toFixed(1);
  const dropped = frames.filter((span) => span > 50).length;
  console.log(
    `250 members, 100 snapshots: frames p50 ${at(frames, 0.5)} ms, p95 ${at(frames, 0.95)} ms, max ${at(frames, 1)} ms; ` +
      `${dropped} of ${frames.length} over 50 ms; work per snapshot p50 ${at(work, 0.5)} ms, p95 ${at(work, 0.95)} ms`,
  );
  // Only what is in view is drawn, and every snapshot arrives.
  expect(await page.locator('[data-row]').count()).toBeLessThan(40);
  expect(work).toHaveLength(100);
  // A machine that is busy with other things drops many frames, but not all.
  expect(dropped).toBeLessThan(frames.length);
  expect(page.problems).toEqual([]);
  await page.close();
});
