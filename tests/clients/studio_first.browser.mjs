// A new project: nobody is an operator. Somebody signs up on the Studio's page, is refused, is granted the right by the
// command line, and gets in; by a link from a mail as well. Taking the right away shows at the next click.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { project, scenario, variable } from './browser.mjs'
import { looks, signIn, studio } from './studio.mjs'

const [email, password] = ['ada@example.com', 'analytical engine']
const longhouse = (...words) => execFileSync(variable('LONGHOUSE_TEST_PROGRAM'), ['studio', '--data', variable('LONGHOUSE_TEST_DATA'), ...words], { encoding: 'utf8' })

await scenario('studio_first', async ({ open }) => {
  const { page, complaints } = await studio(open)
  await page.getByText('Nobody looks after this project yet').waitFor()
  await looks(page, '00-first-run')
  await page.getByRole('button', { name: 'Create one' }).click()
  await page.getByLabel('Email', { exact: true }).fill(email)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('button', { name: 'Create account' }).click()
  await page.getByRole('heading', { name: 'You are not an operator yet' }).waitFor()
  await page.getByText(`longhouse studio grant ${email}`).waitFor()

  // Being refused is not a matter of the page.
  const token = await page.evaluate(() => JSON.parse(localStorage.getItem('longhouse-studio')).access_token)
  const refused = await fetch(`${project().url}/studio/v1/overview`, { headers: { authorization: `Bearer ${token}` } })
  assert.equal(refused.status, 403)

  assert.match(longhouse('grant', email), /is an operator now/)
  await page.getByRole('button', { name: 'Check again' }).click()
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor()
  assert.equal(longhouse('operators').trim(), email)
  await page.reload()
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor()

  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByRole('heading', { name: 'Sign in to the Studio' }).waitFor()
  await signIn(page, email, 'wrong password')
  await page.getByRole('alert').getByText('Invalid login credentials').waitFor()

  await page.getByRole('button', { name: 'Email me a link' }).click()
  await page.getByText('A sign-in link is on its way').waitFor()
  const mails = await fetch(`${project().url}/mailbox/messages`, { headers: { authorization: `Bearer ${project().serviceKey}` } })
  const [mail] = await mails.json()
  assert.equal(mail.to, email)
  await page.goto(mail.link)
  await page.getByRole('heading', { name: 'Overview', level: 1 }).waitFor()
  assert.equal(new URL(page.url()).pathname.replace(/\/$/, ''), '/studio')

  longhouse('revoke', email)
  await page.getByRole('link', { name: 'Users' }).first().click()
  await page.getByRole('heading', { name: 'You are not an operator yet' }).waitFor()
  assert.deepEqual(complaints, [])
})
