// Links in mails, opened from the mailbox that Longhouse shows while no mail server is configured.

import assert from 'node:assert/strict'
import { project, scenario } from './browser.mjs'
import { account, press, seen } from './diary.mjs'

const session = (amr) => ({ email: 'ada@example.com', aal: 'aal1', amr: [amr], provider: 'email' })

/** Opens the newest mail in the browser of a page and clicks the link in it: the page that it leads to. */
async function follow(page, subject) {
  const mailbox = await page.context().newPage()
  await mailbox.goto(`${project().url}/mailbox`)
  await mailbox.locator('.mails a').first().click()
  assert.match(await mailbox.textContent('h1'), subject)
  const opening = page.context().waitForEvent('page')
  await mailbox.frameLocator('iframe').getByRole('link').first().click()
  const opened = await opening
  await mailbox.close()
  return opened
}

await scenario('mailbox', async ({ open }) => {
  // The first link also makes the account.
  for (const [flowType, subject, amr] of [
    ['pkce', /^Confirm your email address$/, 'email/signup'],
    ['implicit', /^Your sign-in link$/, 'otp'],
  ]) {
    const ada = await open('diary.html', { flowType })
    await seen(ada)
    assert.deepEqual(await account(ada, 'link', 'ada@example.com'), { status: 'sent', alert: '', who: null, entries: [] })
    const arrived = await follow(ada, subject)
    const there = await seen(arrived)
    assert.equal(there.alert, '')
    assert.deepEqual(there.who, session(amr))
    assert.equal(new URL(arrived.url()).pathname, '/diary.html')
    assert.doesNotMatch(arrived.url(), /token|code=/)
    await ada.reload()
    assert.deepEqual((await seen(ada)).who, session(amr), 'the page that asked is signed in as well')

    const again = await follow(ada, subject)
    assert.match((await seen(again)).alert, /invalid or has expired/, 'a link works once')
    await press(ada, '#leave')
  }

  const ada = await open('diary.html', { flowType: 'pkce' })
  await seen(ada)
  assert.equal((await account(ada, 'forgotten', 'ada@example.com')).status, 'sent')
  const recovering = await follow(ada, /password/i)
  await seen(recovering)
  await recovering.waitForFunction(() => document.body.dataset.events.includes('PASSWORD_RECOVERY'))
  assert.equal((await account(recovering, 'renew', '', 'analytical engine')).status, 'renewed')
  await press(recovering, '#leave')
  assert.deepEqual((await account(recovering, 'signIn', 'ada@example.com', 'analytical engine')).who, session('password'))
})
