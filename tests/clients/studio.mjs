// What the scenarios of the Studio share: its pages, who signs in, and what must hold on each page.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@supabase/supabase-js'
import { project, variable } from './browser.mjs'

const AXE = readFileSync(join(import.meta.dirname, 'node_modules/axe-core/axe.min.js'), 'utf8')

/** An address of the Studio. */
export const address = (path = '') => `${project().url}/studio${path}`

/** Opens the Studio; whatever the page complains about, and whatever it fetches from elsewhere, fails the scenario. */
export async function studio(open, path = '') {
  const page = await open(address(path))
  // Colours change within a frame, not over some milliseconds.
  await page.emulateMedia({ reducedMotion: 'reduce' })
  const complaints = []
  page.on('console', (message) => {
    // That a request was refused is what some scenarios are about.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) complaints.push(message.text())
  })
  page.on('request', (request) => {
    const { origin, protocol } = new URL(request.url())
    if (protocol.startsWith('http') && origin !== project().url) complaints.push(`fetched ${request.url()}`)
  })
  // What came before anybody listened comes again.
  await page.reload()
  return { page, complaints }
}

export async function signIn(page, email, password) {
  await page.getByLabel('Email', { exact: true }).fill(email)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('button', { name: 'Sign in', exact: true }).click()
}

export const operator = () => ({ email: variable('LONGHOUSE_TEST_OPERATOR'), password: variable('LONGHOUSE_TEST_OPERATOR_PASSWORD') })

/** People, rows, files and a mail, so that pages have something to show. */
export async function populate() {
  const { url, key, serviceKey } = project()
  const server = createClient(url, serviceKey, { auth: { persistSession: false } })
  const { data: made } = await server.auth.admin.createUser({ email: 'grace@example.com', password: 'nanosecond', email_confirm: true })
  await server.auth.admin.createUser({ email: 'a.person.with.quite.a.long.address@mail.department.example.com' })
  await server.auth.admin.createUser({ email: 'banned@example.com', email_confirm: true, ban_duration: '24h' })
  for (const text of ['Buy milk', 'A note that is long. '.repeat(30)]) {
    const { error } = await server.from('notes').insert({ owner: made.user.id, text, tags: ['home', 'later'] })
    assert.equal(error, null)
  }
  await server.storage.from('avatars').upload('people/grace.svg', '<svg xmlns="http://www.w3.org/2000/svg" width="80" height="80"><rect width="80" height="80" fill="teal"/></svg>', { contentType: 'image/svg+xml' })
  await server.storage.from('avatars').upload('readme.txt', 'Pictures of people.', { contentType: 'text/plain' })
  const visitor = createClient(url, key, { auth: { persistSession: false } })
  await visitor.auth.resetPasswordForEmail('grace@example.com')
  // Model calls, by the provider that works without a key.
  const { data: grace } = await visitor.auth.signInWithPassword({ email: 'grace@example.com', password: 'nanosecond' })
  for (const content of ['Good morning!', 'What is a compiler?']) {
    const answer = await fetch(`${url}/ai/v1/chat`, {
      method: 'POST',
      headers: { authorization: `Bearer ${grace.session.access_token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content }], stream: false }),
    })
    assert.equal(answer.status, 200, await answer.text())
  }
}

/** Waits until the page shows what it has fetched. */
export async function settled(page) {
  await page.waitForLoadState('networkidle')
  await page.waitForFunction(() => !document.querySelector('.skeleton, [aria-busy]'))
}

/** Nothing that axe finds, nothing that needs scrolling sideways. */
export async function sound(page, where) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(AXE)
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
  const told = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join(' | ')}`)
  assert.deepEqual(told, [], where)
  const [wanted, there] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
  assert.ok(wanted <= there, `${where} is ${wanted} px wide on a screen of ${there}`)
}

export const LOOKS = ['light', 'dark'].flatMap((theme) => [1280, 360].map((width) => ({ theme, width })))

/** The page in both themes, wide and narrow: sound, and kept as a picture. */
export async function looks(page, name) {
  const folder = join(variable('LONGHOUSE_TEST_ARTIFACTS'), 'studio')
  await mkdir(folder, { recursive: true })
  for (const { theme, width } of LOOKS) {
    await page.setViewportSize({ width, height: width < 500 ? 740 : 800 })
    await page.evaluate((theme) => {
      localStorage.setItem('longhouse.theme', theme)
      dispatchEvent(new Event('longhouse:theme'))
    }, theme)
    await settled(page)
    await page.evaluate(() => new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown))))
    await page.waitForTimeout(50)
    await sound(page, `${name}, ${theme}, ${width} px`)
    await page.screenshot({ path: join(folder, `${name}-${theme}-${width}.png`), fullPage: !(await page.locator('dialog[open]').count()) })
  }
  await page.setViewportSize({ width: 1280, height: 800 })
}
