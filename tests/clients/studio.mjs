// What the scenarios of the Studio share: its pages, who signs in, and what must hold on each page.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { project, variable } from './browser.mjs'

const AXE = readFileSync(join(import.meta.dirname, 'node_modules/axe-core/axe.min.js'), 'utf8')

/** An address of the Studio. */
export const address = (path = '') => `${project().url}/studio${path}`

/** Opens the Studio; whatever the page complains about, and whatever it fetches from elsewhere, fails the scenario. */
export async function studio(open, path = '') {
  const page = await open(address(path))
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
    // Colours change over some milliseconds.
    await page.waitForTimeout(200)
    await sound(page, `${name}, ${theme}, ${width} px`)
    await page.screenshot({ path: join(folder, `${name}-${theme}-${width}.png`), fullPage: !(await page.locator('dialog[open]').count()) })
  }
  await page.setViewportSize({ width: 1280, height: 800 })
}
