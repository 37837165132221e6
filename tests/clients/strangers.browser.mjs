// A server that trusts one origin: its page works, the same page from another origin is kept out by the browser.

import assert from 'node:assert/strict'
import { scenario } from './browser.mjs'

await scenario('strangers', async ({ open, origin }) => {
  const friend = await open('notes.html')
  await friend.waitForSelector('#status:text("ready")')
  const stranger = await open('notes.html', { origin: origin.replace('127.0.0.1', 'localhost') })
  await stranger.waitForFunction(() => document.querySelector('#status').textContent !== 'loading')
  assert.equal(await stranger.textContent('#status'), 'refused')
  assert.match(await stranger.textContent('#alert'), /Failed to fetch/)
  assert.equal(await stranger.locator('#notes li').count(), 0)
})
