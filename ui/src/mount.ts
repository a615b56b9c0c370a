import { mount } from 'svelte';
import App from './App.svelte';
import { start, welcome } from './state/start';

/** Shows the app once it knows what to show. */
export async function mountApp() {
  await start();
  const target = document.getElementById('app');
  if (target) mount(App, { target });
  await welcome();
}
