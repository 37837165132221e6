// The diary's page as a person uses it.

import { createHmac } from 'node:crypto'

/** What the page shows, once it has come to rest. */
export async function seen(page) {
  await page.waitForFunction(() => !['', 'loading', 'leaving', undefined].includes(document.querySelector('#status')?.textContent))
  return page.evaluate(() => ({
    status: document.querySelector('#status').textContent,
    alert: document.querySelector('#alert').textContent,
    who: JSON.parse(document.querySelector('#who').textContent),
    entries: [...document.querySelectorAll('#entries li')].map((item) => item.textContent),
  }))
}

/** Presses a button of the page. */
export async function press(page, button) {
  await page.click(button)
  return seen(page)
}

/** Fills in address and password and presses a button of that form. */
export async function account(page, button, email, password = '') {
  await page.fill('#account [name=email]', email)
  await page.fill('#account [name=password]', password)
  return press(page, `#account [name=${button}]`)
}

/** Writes a page of the diary. */
export async function write(page, text, { sealed = false } = {}) {
  await page.fill('#write [name=text]', text)
  await page.setChecked('#write [name=sealed]', sealed)
  return press(page, '#write button')
}

/** Types a code of the authenticator. */
export async function verify(page, code) {
  await page.fill('#factor [name=code]', code)
  return press(page, '#factor [name=verify]')
}

/** What an authenticator app shows (RFC 6238), so many steps of 30 seconds from now. */
export function totp(secret, steps = 0) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
  const bits = [...secret].map((character) => alphabet.indexOf(character).toString(2).padStart(5, '0')).join('')
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)))
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps))
  const mac = createHmac('sha1', key).update(counter).digest()
  const number = mac.readUInt32BE(mac.at(-1) & 15) & 0x7fff_ffff
  return String(number % 1_000_000).padStart(6, '0')
}

/** The session as supabase-js stores it. */
export function stored(page) {
  return page.evaluate(() => {
    const name = Object.keys(localStorage).find((key) => key.endsWith('-auth-token'))
    return name ? JSON.parse(localStorage.getItem(name)) : null
  })
}
