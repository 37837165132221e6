// What opens within the Studio's pages, looked at as the pages are: tabs, dialogs, previews, the menu of narrow screens.

import assert from 'node:assert/strict'
import { scenario } from './browser.mjs'
import { address, looks, operator, populate, signIn, studio } from './studio.mjs'

await scenario('studio_dialogs', async ({ open }) => {
  await populate()
  const { page, complaints } = await studio(open)
  await signIn(page, operator().email, operator().password)
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor()

  await page.goto(address('/tables/public/notes'))
  for (const tab of ['Columns', 'Policies (2)', 'Definition']) {
    await page.getByRole('tab', { name: tab }).click()
    await looks(page, `14-${tab.split(' ')[0].toLowerCase()}`)
  }
  await page.goto(address('/tables/public/notes'))
  await page.getByRole('button', { name: 'Show row 2' }).click()
  await looks(page, '15-row')
  await page.goto(address('/users'))
  await page.getByRole('button', { name: 'grace@example.com' }).click()
  await page.getByText('Metadata').click()
  await looks(page, '16-user')
  await page.goto(address('/storage/avatars?folder=people'))
  await page.getByRole('button', { name: 'grace.svg', exact: true }).click()
  await page.getByRole('img', { name: 'grace.svg' }).waitFor()
  await looks(page, '17-preview')
  await page.goto(address('/mailbox'))
  await page.getByRole('button', { name: /password/i }).first().click()
  await looks(page, '18-mail')
  await page.goto(address(''))
  await page.setViewportSize({ width: 360, height: 740 })
  await page.getByRole('button', { name: 'Menu' }).click()
  await looks(page, '19-menu')
  assert.deepEqual(complaints, [])
})
