// Under LANG=C the webview says its language is "C", which Intl refuses, and uPlot asks Intl while it loads.
import './styles/app.css';

function guardLocale() {
  try {
    new Intl.NumberFormat(navigator.language);
  } catch {
    Object.defineProperty(navigator, 'language', { value: 'en' });
    Object.defineProperty(navigator, 'languages', { value: ['en'] });
  }
}

guardLocale();
if (import.meta.env.MODE === 'mock') await (await import('../mock/install')).install();
await (await import('./mount')).mountApp();
