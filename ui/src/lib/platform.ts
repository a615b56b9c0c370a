// Differences between systems that people notice.
const agent = typeof navigator === 'undefined' ? '' : navigator.userAgent;
export const mac = /Mac/.test(agent);

/** Keys as a Mac writes them; ⌘ comes last, next to the letter. */
const symbols: [string, string][] = [['Mod+Shift+', '⇧⌘'], ['Mod+', '⌘'], ['Enter', '↩'], ['Esc', '⎋']];

/** A shortcut as this system writes it: `Mod+N` is ⌘N on a Mac and Ctrl+N elsewhere. */
export function keys(shortcut: string): string {
  if (!mac) return shortcut.replace('Mod', 'Ctrl');
  return symbols.reduce((text, [key, symbol]) => text.replace(key, symbol), shortcut);
}

/** Whether an event is the shortcut's. */
export function matches(event: KeyboardEvent, shortcut: string): boolean {
  const parts = shortcut.split('+');
  const key = parts.at(-1) ?? '';
  const mod = mac ? event.metaKey : event.ctrlKey;
  if (mod !== parts.includes('Mod') || event.altKey) return false;
  if (/^[a-z,]$/i.test(key) && event.shiftKey !== parts.includes('Shift')) return false;
  return event.key.toLowerCase() === key.toLowerCase();
}

/** Whether the event comes from where people type. */
export const typing = (event: KeyboardEvent) =>
  event.target instanceof HTMLElement && event.target.matches('input, textarea, select, [contenteditable]');
