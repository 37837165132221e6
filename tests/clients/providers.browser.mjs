// Sign-in through another site, which asks the person on a page of its own.

import assert from 'node:assert/strict'
import { scenario, variable } from './browser.mjs'
import { press, seen, stored, write } from './diary.mjs'

const ADA = { email: 'ada@example.com', aal: 'aal1', amr: ['oauth'], provider: 'house' }
const SITE = new URL(variable('LONGHOUSE_TEST_PROVIDER')).origin

/** From the diary to the site and, with a click on one of its buttons, back. */
async function visit(page, button) {
  await page.click('#provider')
  await page.waitForURL((url) => url.origin === SITE)
  await page.getByRole('button', { name: button }).click()
  await page.waitForURL((url) => url.pathname === '/diary.html')
  return seen(page)
}

await scenario('providers', async ({ open }) => {
  for (const flowType of ['pkce', 'implicit']) {
    const ada = await open('diary.html', { flowType })
    await seen(ada)
    const refused = await visit(ada, 'Do not allow')
    assert.equal(refused.who, null)
    assert.match(refused.alert, /The user has denied your application access/)

    await ada.goto(new URL('/diary.html', ada.url()).href)
    await seen(ada)
    const arrived = await visit(ada, 'Ada Lovelace')
    assert.deepEqual(arrived.who, { ...ADA, providerToken: true }, flowType)
    assert.doesNotMatch(ada.url(), /token|code=/, 'nothing secret stays in the address')
    const { user } = await stored(ada)
    assert.equal(user.user_metadata.full_name, 'Ada Lovelace')
    assert.equal(user.identities[0].provider, 'house')
    const entries = flowType === 'pkce' ? ['From the house'] : ['From the house', 'Again']
    assert.deepEqual((await write(ada, entries.at(-1))).entries, entries, 'the same account both times')

    await ada.reload()
    assert.deepEqual((await seen(ada)).who.email, 'ada@example.com')
    assert.deepEqual((await press(ada, '#refresh')).who, ADA)
    assert.equal((await press(ada, '#leave')).who, null)
  }
})
