// /rest/v1 as people in a browser meet it: Ada, Bob and somebody who has not signed in.

import assert from 'node:assert/strict'
import { scenario, variable } from './browser.mjs'

/** What the page shows, once it has come to rest. */
async function seen(page) {
  await page.waitForFunction(() => document.querySelector('#status').textContent !== 'loading')
  return page.evaluate(() => ({
    status: document.querySelector('#status').textContent,
    alert: document.querySelector('#alert').textContent,
    count: document.querySelector('#count').textContent,
    notes: [...document.querySelectorAll('#notes li')].map((item) => item.firstChild.textContent.trim()),
  }))
}

async function after(page, action) {
  await action
  return seen(page)
}

async function write(page, { slug, title, author = '', how = 'insert' }) {
  await page.fill('#write [name=slug]', slug)
  await page.fill('#write [name=title]', title)
  await page.selectOption('#write [name=author]', { label: author || 'me' })
  return after(page, page.click(`#write [name=${how}]`))
}

const remove = (page, slug) => after(page, page.click(`li[data-slug=${slug}] button`))

async function search(page, term) {
  await page.fill('#search [name=term]', term)
  return after(page, page.click('#search button'))
}

await scenario('notes', async ({ open, origin, preflights }) => {
  const anonymous = await open('notes.html')
  assert.deepEqual(await seen(anonymous), {
    status: 'ready',
    alert: '',
    count: '2 of 2',
    notes: ['A letter to Ada by Bob #engines #letters', 'The mill by Ada #engines'],
  })
  assert.notEqual(new URL(anonymous.url()).origin, new URL(variable('LONGHOUSE_TEST_API_URL')).origin)
  assert.equal(new URL(anonymous.url()).origin, origin)
  const refused = await write(anonymous, { slug: 'graffiti', title: 'I was here', author: 'Ada' })
  assert.equal(refused.status, 'refused')
  assert.equal(refused.alert, '401 42501: new row violates row-level security policy for table "notes"')

  const ada = await open('notes.html', { token: variable('LONGHOUSE_TEST_ADA') })
  assert.deepEqual(await seen(ada), {
    status: 'ready',
    alert: '',
    count: '2 of 3',
    notes: ['A secret draft by Ada (private)', 'A letter to Ada by Bob #engines #letters'],
  })
  assert.deepEqual((await after(ada, ada.click('#more'))).notes.at(-1), 'The mill by Ada #engines')

  const written = await write(ada, { slug: 'loom', title: 'The loom – “Jacquard”, 織機 & co' })
  assert.equal(written.status, '201 insert The loom – “Jacquard”, 織機 & co')
  assert.equal(written.count, '4 of 4')
  assert.ok(written.notes.includes('The loom – “Jacquard”, 織機 & co by Ada (private)'), written.notes.join('\n'))

  const again = await write(ada, { slug: 'loom', title: 'Twice' })
  assert.equal(again.alert, '409 23505: duplicate key value violates unique constraint "notes_slug_key"')
  const saved = await write(ada, { slug: 'loom', title: 'The loom', how: 'upsert' })
  assert.equal(saved.status, '200 upsert The loom')
  assert.equal(saved.count, '4 of 4')

  const forged = await write(ada, { slug: 'forged', title: 'By Bob, honestly', author: 'Bob' })
  assert.equal(forged.alert, '403 42501: new row violates row-level security policy for table "notes"')
  const empty = await write(ada, { slug: 'empty', title: '' })
  assert.equal(empty.alert, '400 23514: new row for relation "notes" violates check constraint "notes_title_check"')
  assert.equal((await remove(ada, 'letter')).status, 'nothing deleted', 'Bob’s note is not hers')
  assert.equal((await search(ada, 'the')).status, 'The loom by Ada, The mill by Ada')
  assert.equal((await search(ada, '%\' or 1=1 --')).status, 'nothing found')
  const archive = await after(ada, ada.click('#nowhere'))
  assert.equal(archive.alert, "404 PGRST205: Could not find the table 'public.archive' in the schema cache")

  // What Ada publishes is there for Bob; what he writes is his.
  const bob = await open('notes.html', { token: variable('LONGHOUSE_TEST_BOB') })
  assert.equal((await seen(bob)).count, '2 of 2')
  assert.equal((await after(ada, ada.click('#publish'))).status, '2 published')
  assert.deepEqual((await after(bob, bob.click('#more'))).count, '4 of 4')
  assert.equal((await remove(bob, 'draft')).status, 'nothing deleted')
  assert.equal((await remove(bob, 'letter')).status, 'deleted A letter to Ada')
  assert.deepEqual((await seen(bob)).count, '3 of 3')

  const expired = await open('notes.html', { token: variable('LONGHOUSE_TEST_EXPIRED') })
  assert.equal((await seen(expired)).alert, '401 PGRST303: JWT expired')

  for (const path of ['/rest/v1/notes', '/rest/v1/rpc/search_notes']) {
    assert.ok(preflights.some((url) => new URL(url).pathname === path), `CORS did not ask for ${path}: ${preflights}`)
  }
})
