// What every browser scenario needs: pages on an origin of their own, a fresh Chromium, and evidence on failure.
//
//   await scenario('notes', async ({ open }) => {
//     const page = await open('notes.html', { token })
//     await page.click('#publish')
//   })
//
// Environment: LONGHOUSE_TEST_ARTIFACTS, folder for screenshots; LONGHOUSE_TEST_PAGES_PORT, port of the pages (any
// free one when unset); LONGHOUSE_TEST_CHROMIUM, the browser (found when unset).

import { createServer } from 'node:http'
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { delimiter, extname, join, normalize } from 'node:path'
import { chromium } from 'playwright-core'

const HERE = import.meta.dirname
const DEADLINE_MS = 90_000
const STEP_MS = 15_000

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
]

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.map': 'application/json' }

/** Official bundles, byte for byte as npm has them. */
const BUNDLES = {
  '/vendor/supabase.js': 'node_modules/@supabase/supabase-js/dist/umd/supabase.js',
  '/vendor/tus.js': 'node_modules/tus-js-client/dist/tus.min.js',
}

/** The project under test, as the Rust side tells of it. */
export function project() {
  const wanted = ['API_URL', 'KEY', 'SERVICE_KEY']
  const [url, key, serviceKey] = wanted.map((name) => variable(`LONGHOUSE_TEST_${name}`))
  return { url, key, serviceKey }
}

/** A variable that the Rust side sets. */
export function variable(name) {
  const value = process.env[name]
  if (!value) throw new Error(`${name} is not set: run this through \`cargo xtask test -p longhouse-tests\``)
  return value
}

/**
 * Plays one scenario, for so long at most; ends the process with its verdict. `play` gets
 * `open(path, settings)`: a page with `window.project` = project() and settings, which shares no cookies or storage with others;
 * `origin`: of the pages; `preflights`: URLs that any page asked permission for (CORS).
 */
export async function scenario(name, play, deadline = DEADLINE_MS) {
  const pages = await servePages()
  // In a temporary profile, which goes with it.
  const browser = await chromium.launch({ executablePath: browserProgram(), args: FLAGS })
  const opened = []
  const preflights = []
  let verdict = 0
  const broken = Promise.withResolvers()
  // Reported by whoever races against it; without a race there is nobody to tell.
  broken.promise.catch(() => {})
  const open = async (path, settings = {}) => {
    const context = await browser.newContext({ viewport: { width: 1024, height: 768 } })
    context.setDefaultTimeout(STEP_MS)
    const record = { context, page: await context.newPage(), lines: [] }
    opened.push(record)
    await watch(record, preflights)
    record.page.on('pageerror', broken.reject)
    await context.addInitScript((project) => { window.project = project }, { ...project(), ...settings })
    await record.page.goto(new URL(path, settings.origin ?? pages.origin).href)
    return record.page
  }
  const timer = setTimeout(() => broken.reject(new Error(`not done after ${deadline / 1000} s`)), deadline)
  try {
    await Promise.race([play({ open, origin: pages.origin, preflights }), broken.promise])
  } catch (error) {
    verdict = 1
    console.error(error)
    for (const [index, record] of opened.entries()) await evidence(`${name}-${index + 1}`, record)
  }
  clearTimeout(timer)
  await browser.close()
  pages.close()
  process.exit(verdict)
}

/** Console, errors and answers of a page, for the evidence; and which requests CORS made the browser ask for. */
async function watch({ page, context, lines }, preflights) {
  page.on('console', (message) => lines.push(`console.${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => lines.push(`uncaught: ${error.message}`))
  page.on('requestfailed', (request) => lines.push(`failed: ${request.method()} ${request.url()} ${request.failure()?.errorText}`))
  page.on('response', (answer) => lines.push(`${answer.status()}: ${answer.request().method()} ${answer.url()}`))
  const devtools = await context.newCDPSession(page)
  await devtools.send('Network.enable')
  devtools.on('Network.requestWillBeSent', ({ request }) => {
    if (request.method === 'OPTIONS') preflights.push(request.url)
  })
}

async function evidence(name, { page, lines }) {
  const folder = variable('LONGHOUSE_TEST_ARTIFACTS')
  await mkdir(folder, { recursive: true })
  const screenshot = join(folder, `${name}.png`)
  try {
    await page.screenshot({ path: screenshot, fullPage: true, timeout: 5_000 })
    console.error(`screenshot: ${screenshot}`)
    console.error(`page: ${page.url()}\n${await page.locator('body').innerText({ timeout: 5_000 })}`)
  } catch (error) {
    console.error(`no screenshot: ${error.message}`)
  }
  console.error(lines.slice(-60).join('\n'))
}

/** The folder `pages/` and the bundles, on an origin that is not the API's. */
async function servePages() {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://pages')
    const file = BUNDLES[pathname] ?? join('pages', normalize(decodeURIComponent(pathname)))
    try {
      const body = await readFile(join(HERE, file))
      response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' }).end(body)
    } catch {
      response.writeHead(404).end('not found')
    }
  })
  const port = Number(process.env.LONGHOUSE_TEST_PAGES_PORT ?? 0)
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve))
  // Without waiting for connections that the browser keeps open.
  const close = () => { server.close(); server.closeAllConnections() }
  return { origin: `http://127.0.0.1:${server.address().port}`, close }
}

function browserProgram() {
  const named = process.env.LONGHOUSE_TEST_CHROMIUM
  if (named) return named
  const programs = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
  const found = (process.env.PATH ?? '')
    .split(delimiter)
    .flatMap((folder) => programs.map((program) => join(folder, program)))
    .concat('/Applications/Google Chrome.app/Contents/MacOS/Google Chrome', '/Applications/Chromium.app/Contents/MacOS/Chromium')
    .find((path) => existsSync(path))
  if (!found) throw new Error('no Chromium found: run `cargo xtask setup`')
  return found
}
