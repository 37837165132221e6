// /realtime/v1 as two people in two browsers meet it: Ada with the newer serializer, Bob with the older one.

import assert from 'node:assert/strict'
import { scenario, variable } from './browser.mjs'

const lines = (page, list) => page.locator(`#${list} li`).allTextContents()

/** Waits until the log of a page has this line. */
async function logs(page, line) {
  await page.locator('#log li', { hasText: line }).first().waitFor()
}

async function people(page, expected) {
  const here = () => [...document.querySelectorAll('#people li')].map((item) => item.textContent)
  await page.waitForFunction(([here, expected]) => JSON.stringify(eval(here)().sort()) === expected, [
    `(${here})`, JSON.stringify(expected),
  ]).catch(async () => assert.deepEqual(await lines(page, 'people'), expected))
}

async function type(page, form, text) {
  await page.fill(`#${form} [name=text]`, text)
  await page.click(`#${form} button`)
}

await scenario('board', async ({ open }) => {
  const person = (name, token, vsn) => open('board.html', { token: variable(token), name, vsn, board: 'plans' })
  const ada = await person('ada', 'LONGHOUSE_TEST_ADA', '2.0.0')
  await logs(ada, 'tracked: ok')
  await logs(ada, 'postgres_changes ok: Subscribed to PostgreSQL')
  const bob = await person('bob', 'LONGHOUSE_TEST_BOB', '1.0.0')
  await logs(bob, 'postgres_changes ok: Subscribed to PostgreSQL')
  await people(ada, ['ada curious', 'bob curious'])
  await people(bob, ['ada curious', 'bob curious'])

  await type(ada, 'say', 'grüß dich, 織機')
  await logs(bob, 'said: grüß dich, 織機')
  await logs(ada, 'sent: ok')
  await type(bob, 'say', 'he may not')
  await type(ada, 'say', 'still alone')
  await logs(bob, 'said: still alone')
  assert.ok(!(await lines(ada, 'log')).some((line) => line.startsWith('said:')), 'Bob may not write, and she asked for no echo')

  // What Ada writes is hers until she opens it; Bob's filter would let it through, his rights do not.
  await type(ada, 'write', 'a secret plan')
  await logs(ada, 'new card: a secret plan')
  await type(bob, 'write', 'a plan of his own')
  await logs(bob, 'new card: a plan of his own')
  assert.ok(!(await lines(bob, 'log')).includes('new card: a secret plan'))
  assert.ok(!(await lines(ada, 'log')).includes('new card: a plan of his own'))
  await ada.click('#open')
  await logs(ada, 'opened mine')
  await logs(bob, 'card changed: a secret plan open')
  await logs(bob, 'opened: a secret plan')
  await logs(ada, 'opened: a secret plan')

  // Another board's cards pass nobody's filter here.
  const elsewhere = await open('board.html', { token: variable('LONGHOUSE_TEST_ADA'), name: 'ada', vsn: '2.0.0', board: 'dreams' })
  await logs(elsewhere, 'postgres_changes ok: Subscribed to PostgreSQL')
  await type(elsewhere, 'write', 'a dream')
  await logs(elsewhere, 'new card: a dream')
  await people(elsewhere, ['ada curious'])
  assert.ok(!(await lines(ada, 'log')).includes('new card: a dream'))

  // A tab that vanishes, and one that says goodbye.
  await bob.close()
  await people(ada, ['ada curious'])
  await ada.click('#leave')
  await logs(ada, 'left: ok')

  const expired = await person('eve', 'LONGHOUSE_TEST_EXPIRED', '2.0.0')
  await expired.waitForFunction(() => document.querySelector('#status').textContent.startsWith('CHANNEL_ERROR'))
  assert.match(
    await expired.locator('#status').textContent(),
    /^CHANNEL_ERROR: (InvalidJWTToken: Token has expired \d+ seconds ago|Unauthorized: You do not have permissions)/,
  )
})
