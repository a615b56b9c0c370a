import { svelte } from '@sveltejs/vite-plugin-svelte';
import tailwindcss from '@tailwindcss/vite';
import { defineConfig } from 'vitest/config';

export default defineConfig(({ mode }) => ({
  plugins: [tailwindcss(), svelte()],
  clearScreen: false,
  server: { port: 1420, strictPort: true },
  build: {
    target: ['es2022', 'safari16'],
    // The mock build stands beside the real one and is never bundled.
    outDir: mode === 'mock' ? 'dist-mock' : 'dist',
    chunkSizeWarningLimit: 900,
  },
  test: {
    projects: [
      { extends: true, test: { name: 'unit', include: ['src/**/*.test.ts'], environment: 'node' } },
      // One browser, one after another: what runs beside a test must not slow it.
      {
        test: {
          name: 'screens', include: ['tests/**/*.test.ts'], environment: 'node', fileParallelism: false,
          testTimeout: 300_000, hookTimeout: 120_000,
        },
      },
    ],
  },
}));
