// A business on the receptionist through supabase-js: opened, people invited, appointments booked, moved and seen by whom they concern.

import assert from 'node:assert/strict'
import { createClient } from '@supabase/supabase-js'

const { LONGHOUSE_TEST_API_URL: url, LONGHOUSE_TEST_KEY: key } = process.env
const client = () => createClient(url, key, { auth: { persistSession: false }, db: { schema: 'receptionist' } })

/** Somebody with an account. */
async function person(name) {
  const own = client()
  const { error } = await own.auth.signUp({ email: `${name}@example.com`, password: `${name} has a password` })
  assert.equal(error, null)
  return own
}

/** What a call gave; a failure ends the story. */
async function got(call) {
  const { data, error } = await call
  assert.equal(error, null, JSON.stringify(error))
  return data
}

/** The status of a refusal. */
async function refused(call) {
  const { error, status } = await call
  assert.notEqual(error, null, 'it was allowed')
  return status
}

const [ada, bob, eve] = await Promise.all(['ada', 'bob', 'eve'].map(person))
const everyDay = [0, 1, 2, 3, 4, 5, 6].map((dow) => ({ dow, opens: '09:00', closes: '17:00' }))
const salon = await got(
  ada.rpc('create_tenant', {
    name: 'Marisol', slug: 'marisol', timezone: 'Europe/Madrid', hours: everyDay,
    services: [{ name: 'Haircut', duration_minutes: 45, price: 30 }], staff: [{ name: 'Ines' }, { name: 'Marco' }],
  }),
)
assert.equal(salon.name, 'Marisol')

// Bob joins by his own address, Eve not at all.
await got(ada.rpc('invite_member', { tenant: salon.id, address: 'bob@example.com', as_role: 'AGENT' }))
const [invitation] = await got(bob.rpc('my_invitations'))
assert.equal(await refused(eve.rpc('accept_invitation', { invitation: invitation.id })), 404)
await got(bob.rpc('accept_invitation', { invitation: invitation.id }))
const [service] = await got(bob.from('services').select('id, name, price'))
assert.deepEqual([service.name, service.price], ['Haircut', 30])

const soon = new Date(Date.now() + 3 * 86_400_000).toISOString().slice(0, 10)
const asked = { tenant: salon.id, service: service.id, from_day: soon, days: 1 }
const free = await got(bob.rpc('availability', asked))
assert.equal(free[0].local_start, `${soon}T09:00:00`)
const wish = { tenant: salon.id, service: service.id, begins: free[0].starts_at, customer: 'Kim', phone: '+34911234567' }
const held = await got(bob.rpc('hold_appointment', wish))
const booked = await got(bob.rpc('confirm_appointment', { appointment: held.id }))
assert.equal(booked.status, 'booked')
await got(bob.rpc('hold_appointment', { ...wish, customer: 'Lee' })) // the other of the two people
assert.equal(await refused(bob.rpc('hold_appointment', { ...wish, customer: 'Max' })), 409)
assert.equal(await refused(eve.rpc('hold_appointment', wish)), 403)

const moved = await got(bob.rpc('reschedule_appointment', { appointment: booked.id, begins: free.at(-1).starts_at }))
assert.equal(moved.revision, 1)
const seen = (own) => own.from('appointments').select('customer_name, status, staff(name)').eq('id', booked.id)
const [appointment] = await got(seen(ada))
assert.equal(appointment.customer_name, 'Kim')
assert.ok(['Ines', 'Marco'].includes(appointment.staff.name))
assert.deepEqual(await got(seen(eve)), [])
assert.equal(await refused(seen(client())), 401)

const token = await got(bob.rpc('create_calendar_feed', { tenant: salon.id }))
const calendar = await (await fetch(`${url}/receptionist/v1/calendars/${token}.ics`)).text()
assert.ok(calendar.includes(`UID:${booked.id}@longhouse`), calendar)

await got(bob.rpc('cancel_appointment', { appointment: booked.id, why: 'ill' }))
const record = await got(ada.from('audit_log').select('action, entity, after').eq('entity', 'appointments').order('id'))
assert.equal(record.at(-1).after.status, 'cancelled')
assert.deepEqual(await got(bob.from('audit_log').select('id')), [])
