// Accounts with a password: Ada signs up, comes back, and leaves; Bob sees nothing of hers.

import assert from 'node:assert/strict'
import { project, scenario } from './browser.mjs'
import { account, press, seen, stored, write } from './diary.mjs'

const ADA = { email: 'ada@example.com', aal: 'aal1', amr: ['password'], provider: 'email' }
const NOBODY = { who: null, entries: [] }

const refresh = (token) => fetch(`${project().url}/auth/v1/token?grant_type=refresh_token`, {
  method: 'POST',
  headers: { apikey: project().key, 'content-type': 'application/json' },
  body: JSON.stringify({ refresh_token: token }),
})

await scenario('accounts', async ({ open, preflights }) => {
  const ada = await open('diary.html')
  assert.deepEqual(await seen(ada), { status: 'ready', alert: '', ...NOBODY })
  assert.equal((await account(ada, 'signUp', 'ada@example.com', 'short')).alert,
    '422 weak_password: Password should be at least 6 characters.')
  const arrived = await account(ada, 'signUp', 'ada@example.com', 'analytical engine')
  assert.deepEqual(arrived, { status: 'signed up', alert: '', who: ADA, entries: [] })
  assert.deepEqual((await write(ada, 'The mill turns.')).entries, ['The mill turns.'])

  // She comes back: by herself, in another window, and after the access token has been replaced.
  await ada.reload()
  assert.deepEqual(await seen(ada), { status: 'ready', alert: '', who: ADA, entries: ['The mill turns.'] })
  const before = await stored(ada)
  assert.deepEqual((await press(ada, '#refresh')).status, 'refreshed')
  const after = await stored(ada)
  assert.notEqual(after.refresh_token, before.refresh_token)
  const window = await ada.context().newPage()
  await window.goto(ada.url())
  assert.deepEqual((await seen(window)).who, ADA)

  const bob = await open('diary.html')
  assert.equal((await account(bob, 'signUp', 'ada@example.com', 'difference engine')).alert,
    '422 user_already_exists: User already registered')
  assert.equal((await account(bob, 'signIn', 'ada@example.com', 'difference engine')).alert,
    '400 invalid_credentials: Invalid login credentials')
  assert.equal((await account(bob, 'signIn', 'bob@example.com', 'difference engine')).alert,
    '400 invalid_credentials: Invalid login credentials', 'whether somebody has an account is not told')
  assert.equal((await account(bob, 'signUp', 'bob@example.com', 'difference engine')).status, 'signed up')
  assert.deepEqual((await write(bob, 'Dear diary')).entries, ['Dear diary'])

  assert.deepEqual(await press(ada, '#leave'), { status: 'signed out', alert: '', ...NOBODY })
  assert.equal(await stored(ada), null)
  const late = await refresh(after.refresh_token)
  assert.equal(late.status, 400)
  assert.equal((await late.json()).error_code, 'refresh_token_not_found')
  await window.reload()
  assert.deepEqual(await seen(window), { status: 'ready', alert: '', ...NOBODY })
  const back = await account(ada, 'signIn', 'Ada@Example.com', 'analytical engine')
  assert.deepEqual(back, { status: 'signed in', alert: '', who: ADA, entries: ['The mill turns.'] })

  for (const path of ['/auth/v1/signup', '/auth/v1/token', '/auth/v1/logout']) {
    assert.ok(preflights.some((url) => new URL(url).pathname === path), `CORS did not ask for ${path}: ${preflights}`)
  }
})
