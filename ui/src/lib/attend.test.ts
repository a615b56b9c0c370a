import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { attend, LATELY, pace } from './attend';

describe('measuring for whoever is at the window', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] }));
  afterEach(() => void vi.useRealTimers());

  it('slows down when nobody has touched it for a while, and goes on at once with the next touch', () => {
    const window = new EventTarget();
    const measure = vi.fn();
    const stop = attend(window, measure);
    vi.advanceTimersByTime(LATELY);
    expect(measure).toHaveBeenCalledTimes(LATELY / pace.attended);
    vi.advanceTimersByTime(4 * pace.left);
    expect(measure).toHaveBeenCalledTimes(LATELY / pace.attended + 4);
    vi.advanceTimersByTime(pace.left - 1);
    expect(measure).toHaveBeenCalledTimes(LATELY / pace.attended + 4);
    window.dispatchEvent(new Event('pointermove'));
    expect(measure).toHaveBeenCalledTimes(LATELY / pace.attended + 5);
    vi.advanceTimersByTime(2 * pace.attended);
    expect(measure).toHaveBeenCalledTimes(LATELY / pace.attended + 7);
    stop();
    window.dispatchEvent(new Event('pointermove'));
    vi.advanceTimersByTime(2 * pace.left);
    expect(measure).toHaveBeenCalledTimes(LATELY / pace.attended + 7);
  });

  it('does not measure more often for many touches', () => {
    const window = new EventTarget();
    const measure = vi.fn();
    const stop = attend(window, measure);
    for (let time = 0; time < 4 * pace.attended; time += 100) {
      window.dispatchEvent(new Event('pointermove'));
      vi.advanceTimersByTime(100);
    }
    expect(measure).toHaveBeenCalledTimes(4);
    stop();
  });
});
