// Connects the store to the shell: first state, then whatever changes.
import type { Navigate } from '../bindings';
import { events, shell } from '../lib/ipc';
import { app } from './app.svelte';

/** Fills the store and keeps it filled. Questions go out together: each answer takes its time before anything is seen. */
export async function start() {
  const preferences = shell.preferences();
  // Else the page is laid out in the system's font first, which takes longer to be found than ours to be loaded.
  const font = document.fonts.load('1em "Inter Variable"').catch(() => {});
  await Promise.all([
    events.snapshotChanged.listen(({ payload }) => app.take(payload)),
    events.backingChanged.listen(({ payload }) => {
      app.backing = payload;
      void refresh();
    }),
    events.linkArrived.listen(() => void takeLink()),
    events.navigate.listen(({ payload }) => navigate(payload)),
  ]);
  const [chosen, backing] = await Promise.all([preferences, shell.backing(), refresh(), font]);
  app.apply(chosen);
  app.backing = backing;
  matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => {
    if (app.preferences) app.apply(app.preferences);
  });
}

/** Sees to what may lie here for us, once the app is shown. */
export async function welcome() {
  addEventListener('focus', () => void lookAtClipboard());
  await takeLink();
  await lookAtClipboard();
}

async function refresh() {
  // None without an engine: the backing says so, and its change brings us here again.
  const snapshot = await shell.snapshot();
  if (snapshot) app.take(snapshot);
}

/** A link that was clicked, perhaps before this window was there. */
async function takeLink() {
  const link = await shell.takeLink();
  if (link) app.open({ kind: 'join', link });
}

async function lookAtClipboard() {
  if (document.hasFocus()) app.offer(await shell.clipboardLink());
}

function navigate(to: Navigate) {
  if (to.page === 'party') app.show({ at: 'party', party: to.party });
  else app.show({ at: to.page });
}
