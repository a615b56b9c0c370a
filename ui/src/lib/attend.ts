// The interval at which members in view are measured: short while somebody is at the window, long while it is only
// open, since each measurement is painted.

/** In milliseconds. */
export const pace = { attended: 2000, left: 5000 };
/** So long after the last touch somebody counts as being there. */
export const LATELY = 30_000;

const touches = ['pointermove', 'pointerdown', 'keydown', 'wheel', 'focus'];

/** Calls `measure` at that pace, until the function that it returns is called. */
export function attend(window: EventTarget, measure: () => void): () => void {
  let touched = performance.now();
  let measured = touched;
  let timer = setTimeout(tick, pace.attended);

  function tick() {
    measured = performance.now();
    measure();
    timer = setTimeout(tick, measured - touched < LATELY ? pace.attended : pace.left);
  }

  function touch() {
    touched = performance.now();
    if (touched - measured <= pace.attended) return;
    clearTimeout(timer);
    tick();
  }

  for (const kind of touches) window.addEventListener(kind, touch);
  return () => {
    clearTimeout(timer);
    for (const kind of touches) window.removeEventListener(kind, touch);
  };
}
