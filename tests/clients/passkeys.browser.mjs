// Passkeys: registered by somebody who is signed in, and from then on enough to sign in.

import assert from 'node:assert/strict'
import { scenario } from './browser.mjs'
import { account, press, seen, write } from './diary.mjs'

await scenario('passkeys', async ({ open, origin }) => {
  // Keys belong to a domain: an address in digits has none.
  const ada = await open('diary.html', { origin: origin.replace('127.0.0.1', 'localhost') })
  await seen(ada)
  const devtools = await ada.context().newCDPSession(ada)
  await devtools.send('WebAuthn.enable')
  const { authenticatorId } = await devtools.send('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true,
      isUserVerified: true, automaticPresenceSimulation: true,
    },
  })

  await account(ada, 'signUp', 'ada@example.com', 'analytical engine')
  await write(ada, 'No more passwords')
  const registered = await press(ada, '#register')
  assert.deepEqual([registered.status, registered.alert], ['registered', ''])
  const { credentials } = await devtools.send('WebAuthn.getCredentials', { authenticatorId })
  assert.deepEqual(credentials.map(({ rpId, isResidentCredential }) => [rpId, isResidentCredential]), [['localhost', true]])

  assert.equal((await press(ada, '#leave')).who, null)
  const back = await press(ada, '#passkey')
  assert.deepEqual(back, {
    status: 'signed in',
    alert: '',
    who: { email: 'ada@example.com', aal: 'aal1', amr: ['passkey'], provider: 'email' },
    entries: ['No more passwords'],
  })

  await press(ada, '#leave')
  await devtools.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified: false })
  const stranger = await press(ada, '#passkey')
  assert.deepEqual([stranger.status, stranger.who], ['refused', null], 'the key alone is not enough: its holder must unlock it')
})
