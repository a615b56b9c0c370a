// Connects the store to the shell: first state, then whatever changes.
import type { Navigate } from '../bindings';
import { events, shell } from '../lib/ipc';
import { app } from './app.svelte';

/** Fills the store and keeps it filled. */
export async function start() {
  app.apply(await shell.preferences());
  matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => {
    if (app.preferences) app.apply(app.preferences);
  });
  setInterval(() => (app.now = Date.now()), 1000);

  await events.snapshotChanged.listen(({ payload }) => app.take(payload));
  await events.backingChanged.listen(({ payload }) => {
    app.backing = payload;
    void refresh();
  });
  await events.linkArrived.listen(() => void takeLink());
  await events.navigate.listen(({ payload }) => navigate(payload));

  app.backing = await shell.backing();
  await refresh();
  await takeLink();
  await lookAtClipboard();
  addEventListener('focus', () => void lookAtClipboard());
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
