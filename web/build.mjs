// What `cargo xtask` runs to make the pages: types of the server's own API, generated files of SvelteKit, the build.
// Everything runs in the Node.js that the lock file names.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const HERE = import.meta.dirname

function run(program, ...words) {
  const { status } = spawnSync(process.execPath, [join(HERE, 'node_modules', program), ...words], { cwd: HERE, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

run('openapi-typescript/bin/cli.js', 'openapi.json', '--output', 'src/lib/api/schema.d.ts')
run('@sveltejs/kit/svelte-kit.js', 'sync')
if (process.argv.includes('--check')) run('svelte-check/bin/svelte-check', '--tsconfig', './tsconfig.json', '--fail-on-warnings')
else run('vite/bin/vite.js', 'build', '--logLevel', 'warn')
