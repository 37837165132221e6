// What operators do in the Studio, by keyboard and mouse, and what it leaves in the project.

import assert from 'node:assert/strict'
import { createClient } from '@supabase/supabase-js'
import { project, scenario } from './browser.mjs'
import { address, operator, settled, signIn, sound, studio } from './studio.mjs'

await scenario('studio', async ({ open }) => {
  const { url, key, serviceKey } = project()
  const client = (key) => createClient(url, key, { auth: { persistSession: false } })
  const { page, complaints } = await studio(open, '/tables')
  await signIn(page, operator().email, operator().password)

  // Tables: the address is kept through the sign-in; what is open is said; eyes of others see what policies show.
  await page.getByText('Row-level security is off:').waitFor()
  const prices = page.getByRole('row', { name: /public\.prices/ })
  await prices.getByText('open to everybody').waitFor()
  await page.getByLabel('Find a table').fill('draft')
  assert.equal(await page.getByRole('row').count(), 2)
  await page.getByLabel('Find a table').fill('prices')
  await page.getByRole('link', { name: 'public.prices' }).click()
  await page.getByText('Rows 1 to 50').waitFor()
  await page.getByRole('button', { name: 'Next page' }).click()
  await page.getByText('Rows 51 to 100').waitFor()
  await page.getByLabel('Find rows').fill('item 7')
  await page.getByRole('cell', { name: 'item 77', exact: true }).waitFor()
  await settled(page)
  assert.equal(await page.getByRole('row').count(), 12)

  // Users: made, found, banned and unbanned, sent a link, deleted. Each does what it says to the person.
  await page.getByRole('link', { name: 'Users' }).click()
  await page.getByRole('button', { name: 'Add user' }).click()
  await page.getByLabel('Email', { exact: true }).fill('bob@example.com')
  await page.getByLabel('Password', { exact: true }).fill('bobs password')
  await page.getByRole('dialog').getByRole('button', { name: 'Add user' }).click()
  await page.getByText('bob@example.com can sign in now.').waitFor()
  const bob = client(key)
  const enter = async () => (await bob.auth.signInWithPassword({ email: 'bob@example.com', password: 'bobs password' })).error?.code
  assert.equal(await enter(), undefined)
  const { data: me } = await bob.auth.getUser()
  assert.equal((await bob.from('notes').insert({ owner: me.user.id, text: 'Mine alone' })).error, null)
  await page.getByLabel('Find users').fill('bob')
  await settled(page)
  await page.getByRole('button', { name: 'bob@example.com' }).click()
  await page.getByRole('button', { name: 'Ban', exact: true }).click()
  await page.getByText('bob@example.com is banned.').waitFor()
  assert.equal(await enter(), 'user_banned')
  await page.getByRole('button', { name: 'Lift ban' }).click()
  await page.getByText('may sign in again').waitFor()
  assert.equal(await enter(), undefined)
  await page.getByRole('button', { name: 'Send password link' }).click()
  await page.getByText('A link to set a new password is on its way').waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'hidden' })

  // His row: the service role sees it, a visitor does not, he does.
  await page.goto(address('/tables/public/notes'))
  const mine = page.getByRole('cell', { name: 'Mine alone' })
  await mine.waitFor()
  await page.getByLabel('Whose eyes').selectOption('anon')
  await page.getByText('The policies show this person nothing.').waitFor()
  await page.getByLabel('Whose eyes').selectOption('authenticated')
  await page.getByLabel('Id of the user').fill(me.user.id)
  await mine.waitFor()

  // The tabs follow the arrow keys.
  await page.getByRole('tab', { name: 'Rows' }).focus()
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('ArrowRight')
  await page.getByText('people read their notes').waitFor()
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Policies (2)')

  // The mail is in the mailbox.
  await page.getByRole('link', { name: 'Mailbox' }).click()
  await page.getByRole('button', { name: /bob@example\.com/ }).first().click()
  await page.getByRole('dialog').getByText('To bob@example.com').waitFor()
  await page.keyboard.press('Escape')

  // Storage: a bucket, a file in it, seen and deleted.
  await page.getByRole('link', { name: 'Storage' }).click()
  await page.getByRole('button', { name: 'New bucket' }).click()
  await page.getByLabel('Name').fill('papers')
  await page.getByRole('button', { name: 'Make bucket' }).click()
  await page.getByRole('link', { name: 'papers' }).click()
  await page.getByText('Nothing in here').waitFor()
  await page.getByLabel('Files to upload').setInputFiles({ name: 'plan é.txt', mimeType: 'text/plain', buffer: Buffer.from('Build the mill.') })
  await page.getByText('plan é.txt: Invalid key').waitFor()
  await page.getByLabel('Files to upload').setInputFiles({ name: 'plan.txt', mimeType: 'text/plain', buffer: Buffer.from('Build the mill.') })
  await page.getByText('plan.txt is uploaded.').waitFor()
  await page.getByRole('button', { name: 'plan.txt', exact: true }).click()
  await page.getByText('Build the mill.').waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('button', { name: 'Delete plan.txt' }).click()
  await page.getByRole('dialog').getByText('This cannot be undone.').waitFor()
  await sound(page, 'the question')
  await page.getByRole('button', { name: 'Delete file' }).click()
  await page.getByText('plan.txt is deleted.').waitFor()
  const { data: left } = await client(serviceKey).storage.from('papers').list()
  assert.deepEqual(left.map((file) => file.name).filter((name) => name === 'plan.txt'), [])

  // Nobody has called a model here yet.
  await page.getByRole('link', { name: 'Usage' }).click()
  await page.getByText('No model calls yet').waitFor()

  // Logs tell of requests; examples name this project; everything is written down.
  await page.getByRole('link', { name: 'Logs' }).click()
  await page.getByLabel('Find entries').fill('/auth/v1/recover')
  await page.getByText('POST /auth/v1/recover → 200').first().waitFor()
  await page.getByRole('link', { name: 'Connect' }).click()
  await page.getByText(key).first().waitFor()
  await page.getByRole('tab', { name: 'curl' }).click()
  await page.getByText(`curl '${url}/rest/v1/notes`).waitFor()
  await page.getByRole('link', { name: 'Users' }).click()
  await page.getByRole('button', { name: 'bob@example.com' }).click()
  await page.getByRole('button', { name: 'Delete', exact: true }).click()
  await page.getByRole('button', { name: 'Delete user' }).click()
  await page.getByText('The user is deleted.').waitFor()
  assert.equal(await enter(), 'invalid_credentials')
  await page.getByRole('link', { name: 'Audit' }).click()
  await page.getByRole('cell', { name: `DELETE /auth/v1/admin/users/${me.user.id}` }).waitFor()
  await page.getByRole('cell', { name: 'DELETE /storage/v1/object/papers' }).first().waitFor()
  await page.getByRole('cell', { name: /GET \/tables\/public\/notes\/rows\?as=anon/ }).first().waitFor()
  assert.deepEqual(complaints, [])
})
