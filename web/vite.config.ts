import adapter from '@sveltejs/adapter-static'
import { sveltekit } from '@sveltejs/kit/vite'
import { defineConfig } from 'vite'

// While developing pages (`npm run dev`), a Longhouse that runs answers everything else.
const server = process.env.LONGHOUSE_URL ?? 'http://127.0.0.1:54321'
const paths = ['/auth', '/rest', '/storage', '/realtime', '/studio/v1', '/mailbox', '/health', '/openapi.json']

export default defineConfig({
  plugins: [
    sveltekit({
      // One page for every address: what it shows is decided in the browser, by who has signed in.
      adapter: adapter({ pages: 'build/site', fallback: 'index.html', precompress: true }),
      paths: { base: '/studio', relative: false },
      // The same sources make the same files.
      version: { name: process.env.LONGHOUSE_WEB_VERSION ?? 'development' },
    }),
  ],
  build: { target: 'es2022' },
  server: { proxy: Object.fromEntries(paths.map((path) => [path, server])) },
})
