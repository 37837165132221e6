// Every page of the Studio in both themes, wide and narrow: axe finds nothing, nothing overflows, nothing comes from elsewhere.

import assert from 'node:assert/strict'
import { createClient } from '@supabase/supabase-js'
import { project, scenario } from './browser.mjs'
import { address, looks, operator, settled, signIn, studio } from './studio.mjs'

await scenario('studio_looks', async ({ open }) => {
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

  const { page, complaints } = await studio(open)
  await page.getByRole('heading', { name: 'Sign in to the Studio' }).waitFor()
  await looks(page, '01-sign-in')
  await signIn(page, 'grace@example.com', 'nanosecond')
  await page.getByRole('heading', { name: 'You are not an operator yet' }).waitFor()
  await looks(page, '02-refused')
  await page.getByRole('button', { name: 'Sign out' }).click()
  await signIn(page, operator().email, operator().password)
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor()

  const pages = [
    ['03-overview', ''],
    ['04-tables', '/tables'],
    ['05-rows', '/tables/public/notes'],
    ['06-users', '/users'],
    ['07-storage', '/storage'],
    ['08-bucket', '/storage/avatars'],
    ['09-mailbox', '/mailbox'],
    ['10-logs', '/logs'],
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
