// A second factor: sealed pages of the diary show with a code of the authenticator app only.

import assert from 'node:assert/strict'
import { scenario } from './browser.mjs'
import { account, press, seen, totp, verify, write } from './diary.mjs'

await scenario('factors', async ({ open }) => {
  const ada = await open('diary.html')
  await seen(ada)
  await account(ada, 'signUp', 'ada@example.com', 'analytical engine')
  await write(ada, 'For everyone of mine')
  assert.match((await write(ada, 'Too early', { sealed: true })).alert, /42501/, 'one factor seals nothing')

  assert.equal((await press(ada, '#factor [name=enrol]')).status, 'enrolled')
  const secret = await ada.textContent('#secret')
  assert.ok(await ada.evaluate(() => document.querySelector('#picture').decode().then(() => true)), 'the QR code is a picture')
  const wrong = String((Number(totp(secret)) + 1) % 1_000_000).padStart(6, '0')
  assert.match((await verify(ada, wrong)).alert, /^422 mfa_verification_failed: /)
  const code = totp(secret, -1)
  const verified = await verify(ada, code)
  assert.equal(verified.status, 'aal2 of aal2', verified.alert)
  assert.equal(verified.who.aal, 'aal2')
  assert.deepEqual(verified.who.amr.toSorted(), ['password', 'totp'])
  assert.deepEqual((await write(ada, 'Sealed', { sealed: true })).entries, ['For everyone of mine', 'Sealed'])

  await press(ada, '#leave')
  const again = await account(ada, 'signIn', 'ada@example.com', 'analytical engine')
  assert.equal(again.who.aal, 'aal1')
  assert.deepEqual(again.entries, ['For everyone of mine'])
  assert.match((await verify(ada, code)).alert, /mfa_verification_failed/, 'a code is good once')
  const stepped = await verify(ada, totp(secret, 1))
  assert.deepEqual([stepped.status, stepped.entries], ['aal2 of aal2', ['For everyone of mine', 'Sealed']], stepped.alert)
  assert.equal((await press(ada, '#refresh')).who.aal, 'aal2', 'a refresh keeps the level')
})
