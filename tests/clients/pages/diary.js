// Accounts on the unmodified supabase-js: what the page shows is all that its tests look at.

const { url, key, flowType } = window.project
const supabase = window.supabase.createClient(url, key, { auth: { flowType }, db: { retry: false } })
const { auth } = supabase

const byId = (id) => document.getElementById(id)
const here = location.origin + location.pathname
const events = []
let factorId

/** The data of an answer. */
function good({ data, error }) {
  if (error) throw error
  return data
}

const claims = (token) => JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')))

/** Who is signed in, as their token says, and what they may see. */
async function show() {
  const { session } = good(await auth.getSession())
  const token = session && claims(session.access_token)
  const who = token && {
    email: token.email,
    aal: token.aal,
    amr: token.amr.map(({ method }) => method),
    provider: token.app_metadata.provider,
    ...(session.provider_token && { providerToken: true }),
  }
  byId('who').textContent = JSON.stringify(who)
  const entries = good(await supabase.from('entries').select('text').order('id'))
  byId('entries').replaceChildren(...entries.map(({ text }) => {
    const item = document.createElement('li')
    item.textContent = text
    return item
  }))
}

/** One thing at a time, so that what is shown belongs to what was asked last. */
async function act(what) {
  byId('status').textContent = 'loading'
  byId('alert').textContent = ''
  let status = 'refused'
  try {
    status = await what()
  } catch (error) {
    byId('alert').textContent = [error.status, `${error.code}:`, error.message].filter(Boolean).join(' ')
  }
  try {
    await show()
  } catch (error) {
    byId('alert').textContent += `${error.code}: ${error.message}`
    status = 'failed'
  }
  byId('status').textContent = status
}

const account = {
  signUp: async (form) => { good(await auth.signUp({ ...form, options: { emailRedirectTo: here } })); return 'signed up' },
  signIn: async (form) => { good(await auth.signInWithPassword(form)); return 'signed in' },
  link: async ({ email }) => { good(await auth.signInWithOtp({ email, options: { emailRedirectTo: here } })); return 'sent' },
  forgotten: async ({ email }) => { good(await auth.resetPasswordForEmail(email, { redirectTo: here })); return 'sent' },
  renew: async ({ password }) => { good(await auth.updateUser({ password })); return 'renewed' },
}

const factor = {
  enrol: async () => {
    const { id, totp } = good(await auth.mfa.enroll({ factorType: 'totp' }))
    factorId = id
    byId('secret').textContent = totp.secret
    byId('picture').src = totp.qr_code
    byId('picture').hidden = false
    return 'enrolled'
  },
  verify: async (code) => {
    factorId ??= good(await auth.mfa.listFactors()).totp[0].id
    const { id: challengeId } = good(await auth.mfa.challenge({ factorId }))
    good(await auth.mfa.verify({ factorId, challengeId, code }))
    const { currentLevel, nextLevel } = good(await auth.mfa.getAuthenticatorAssuranceLevel())
    return `${currentLevel} of ${nextLevel}`
  },
}

byId('account').onsubmit = (event) => {
  event.preventDefault()
  const { email, password } = event.target
  act(() => account[event.submitter.name]({ email: email.value, password: password.value }))
}
byId('factor').onsubmit = (event) => {
  event.preventDefault()
  act(() => factor[event.submitter.name](event.target.code.value))
}
byId('write').onsubmit = (event) => {
  event.preventDefault()
  const { text, sealed } = event.target
  act(async () => { good(await supabase.from('entries').insert({ text: text.value, sealed: sealed.checked })); return 'written' })
}

const buttons = {
  // The page is left for the provider's.
  provider: async () => { good(await auth.signInWithOAuth({ provider: 'house', options: { redirectTo: here } })); return 'leaving' },
  register: async () => { good(await auth.registerPasskey()); return 'registered' },
  passkey: async () => { good(await auth.signInWithPasskey()); return 'signed in' },
  refresh: async () => { good(await auth.refreshSession()); return 'refreshed' },
  leave: async () => { good(await auth.signOut()); return 'signed out' },
}
for (const [name, what] of Object.entries(buttons)) byId(name).onclick = () => act(what)

// Among others PASSWORD_RECOVERY, by which applications know why somebody came.
auth.onAuthStateChange((event) => {
  events.push(event)
  document.body.dataset.events = events.join(' ')
})
act(async () => {
  const { error } = await auth.initialize()
  if (error) throw error
  return 'ready'
})
