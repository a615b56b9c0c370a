// Keys that work everywhere. The list is also what the shortcuts dialog shows.
import type { Key } from '../i18n/index.svelte';
import { matches, typing } from '../lib/platform';
import { app } from '../state/app.svelte';

export interface Shortcut {
  keys: string;
  what: Key;
  run: () => void;
}

const party = () => (app.screen.at === 'party' ? app.screen.party : null);

export const shortcuts: Shortcut[] = [
  { keys: 'Mod+N', what: 'create.title', run: () => app.open({ kind: 'create' }) },
  { keys: 'Mod+J', what: 'join.title', run: () => app.open({ kind: 'join', link: '' }) },
  {
    keys: 'Mod+I',
    what: 'invite.action',
    run: () => {
      const id = party();
      if (id) app.open({ kind: 'invite', party: id });
    },
  },
  { keys: 'Mod+0', what: 'home', run: () => app.show({ at: 'home' }) },
  { keys: 'Mod+Shift+N', what: 'network.title', run: () => app.show({ at: 'network' }) },
  { keys: 'Mod+,', what: 'settings.title', run: () => app.show({ at: 'settings' }) },
];

/** Runs the shortcut that was pressed, if any. */
export function onkeydown(event: KeyboardEvent) {
  if (event.defaultPrevented || !app.named || app.dialog) return;
  const wanted = shortcuts.find((shortcut) => matches(event, shortcut.keys));
  if (wanted) {
    event.preventDefault();
    wanted.run();
  } else if (event.key === '?' && !typing(event)) {
    app.open({ kind: 'shortcuts' });
  } else if (event.key === 'Escape' && app.member && !typing(event)) {
    app.member = null;
  } else if (/^[1-9]$/.test(event.key) && matches(event, `Mod+${event.key}`)) {
    const chosen = app.parties[Number(event.key) - 1];
    if (chosen) {
      event.preventDefault();
      app.show({ at: 'party', party: chosen.id });
    }
  }
}
