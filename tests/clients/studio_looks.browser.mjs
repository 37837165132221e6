// Every page of the Studio in both themes, wide and narrow: axe finds nothing, nothing overflows, nothing comes from elsewhere.

import assert from 'node:assert/strict'
import { scenario } from './browser.mjs'
import { address, looks, operator, populate, settled, signIn, studio } from './studio.mjs'

await scenario('studio_looks', async ({ open }) => {
  await populate()

  const { page, complaints } = await studio(open)
  await page.getByRole('heading', { name: 'Sign in to the Studio' }).waitFor()
  await looks(page, '01-sign-in')
  await signIn(page, 'grace@example.com', 'nanosecond')
  await page.getByRole('heading', { name: 'You are not an operator yet' }).waitFor()
  await looks(page, '02-refused')
  await page.getByRole('button', { name: 'Sign out' }).click()
  await signIn(page, operator().email, operator().password)
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor()

  // A first load: what it weighs as sent, and what moves while it arrives.
  await page.goto(address(''))
  await settled(page)
  const { scripts, shift } = await page.evaluate(async () => {
    const sent = performance.getEntriesByType('resource').filter(({ name }) => new URL(name).pathname.endsWith('.js'))
    const shifts = await new Promise((resolve) => {
      new PerformanceObserver((list) => resolve(list.getEntries())).observe({ type: 'layout-shift', buffered: true })
      setTimeout(() => resolve([]), 500)
    })
    return {
      scripts: sent.reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0),
      shift: shifts.reduce((sum, { value }) => sum + value, 0),
    }
  })
  console.log(`first load: ${scripts} bytes of scripts, layout shift ${shift.toFixed(4)}`)
  assert.ok(scripts > 10_000 && scripts < 200_000, `${scripts} bytes of scripts`)
  assert.ok(shift < 0.1, `layout shift ${shift}`)

  const pages = [
    ['03-overview', ''],
    ['04-tables', '/tables'],
    ['05-rows', '/tables/public/notes'],
    ['06-users', '/users'],
    ['07-storage', '/storage'],
    ['08-bucket', '/storage/avatars'],
    ['09-mailbox', '/mailbox'],
    ['10-logs', '/logs'],
    ['10-usage', '/usage'],
    ['11-connect', '/connect'],
    ['12-audit', '/audit'],
    ['13-not-found', '/nowhere'],
  ]
  for (const [name, path] of pages) {
    await page.goto(address(path))
    await page.locator('#content').waitFor()
    await settled(page)
    await looks(page, name)
  }
  assert.deepEqual(complaints, [])
}, 150_000)
