// Who is signed in, and the clients that act for them: the unmodified supabase-js, once as the person, once for the
// operators' endpoints; and a client of the Studio's own API, typed by its description.

import { createClient, type Session, type SupabaseClient } from '@supabase/supabase-js'
import createApi, { type Client } from 'openapi-fetch'
import type { components, paths } from './api/schema.d.ts'

export type Schemas = components['schemas']

type Storage = SupabaseClient['storage']
export type Bucket = NonNullable<Awaited<ReturnType<Storage['listBuckets']>>['data']>[number]
export type FileObject = NonNullable<Awaited<ReturnType<ReturnType<Storage['from']>['list']>>['data']>[number]

/** What the sign-in page may offer, of `/auth/v1/settings`. */
export interface SignInWays {
  external: Record<string, boolean>
  disable_signup: boolean
  mailer_autoconfirm: boolean
}

/** An error as Longhouse's own endpoints tell it. */
interface Refusal {
  code?: string
  message?: string
  hint?: string
}

export type Phase = 'starting' | 'broken' | 'out' | 'recovering' | 'checking' | 'refused' | 'factor' | 'in'

const SERVICE = `${location.origin}/studio/v1/service`

class Studio {
  phase = $state<Phase>('starting')
  /** Why, in the phases that need a reason. */
  reason = $state('')
  project = $state.raw<Schemas['Project']>()
  ways = $state.raw<SignInWays>()
  session = $state.raw<Session | null>(null)

  #supabase: SupabaseClient | undefined
  #service: SupabaseClient | undefined
  /** The Studio's own API, as the person who is signed in. */
  readonly api: Client<paths> = createApi<paths>({ baseUrl: location.origin, fetch: (request: Request) => this.#authorised(request) })

  /** supabase-js as the person who is signed in. */
  get supabase(): SupabaseClient {
    if (!this.#supabase) throw new Error('the Studio has not started')
    return this.#supabase
  }

  /** supabase-js for what operators administer: accounts and files of everybody. */
  get service(): SupabaseClient {
    if (!this.#service) throw new Error('the Studio has not started')
    return this.#service
  }

  get email(): string {
    return this.session?.user.email ?? ''
  }

  async start(): Promise<void> {
    this.phase = 'starting'
    try {
      const { data, error } = await this.api.GET('/studio/v1/project')
      if (!data) throw new Error(text(error))
      this.project = data
      if (!this.#supabase) this.#connect(data.publishable_key)
      const ways = await fetch('/auth/v1/settings', { headers: { apikey: data.publishable_key } })
      if (!ways.ok) throw new Error(`/auth/v1/settings answered ${ways.status}`)
      this.ways = (await ways.json()) as SignInWays
      const { data: found } = await this.supabase.auth.getSession()
      // A link from a mail may have come first.
      if ((this.phase as Phase) !== 'recovering') await this.#enter(found.session)
    } catch (error) {
      this.phase = 'broken'
      this.reason = error instanceof Error ? error.message : String(error)
    }
  }

  /** Asks the server again whether this person is an operator, with a token of this moment. */
  async check(): Promise<void> {
    this.phase = 'checking'
    const { data } = await this.supabase.auth.refreshSession()
    await this.#enter(data.session)
  }

  async signOut(): Promise<void> {
    await this.supabase.auth.signOut({ scope: 'local' })
  }

  /** A request to an endpoint of a service that supabase-js does not offer with all its parameters. */
  async administer(path: string, init: RequestInit = {}): Promise<Response> {
    return this.#authorised(new Request(`${SERVICE}${path}`, init))
  }

  #connect(key: string): void {
    this.#supabase = createClient(location.origin, key, { auth: { storageKey: 'longhouse-studio', flowType: 'pkce' } })
    this.#service = createClient(SERVICE, key, {
      auth: { storageKey: 'longhouse-studio-service', persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
      global: { fetch: (input, init) => this.#authorised(new Request(input, init)) },
    })
    this.#supabase.auth.onAuthStateChange((event, session) => {
      // Nothing of the client may be awaited in here: it waits for this to return.
      if (event === 'SIGNED_OUT') setTimeout(() => void this.#enter(null))
      if (event === 'PASSWORD_RECOVERY') this.phase = 'recovering'
      else if (event === 'SIGNED_IN' && this.phase === 'out') setTimeout(() => void this.#enter(session))
      if (session) this.session = session
    })
  }

  async #enter(session: Session | null): Promise<void> {
    this.session = session
    if (!session) {
      this.phase = 'out'
      return
    }
    if (this.phase !== 'in') this.phase = 'checking'
    const { error, response } = await this.api.GET('/studio/v1/overview')
    if (response.ok) this.phase = 'in'
    else this.#refuse(response.status, error as Refusal | undefined)
  }

  #refuse(status: number, error: Refusal | undefined): void {
    this.reason = text(error)
    if (status === 401 || error?.code === 'session_ended') {
      this.session = null
      this.phase = 'out'
      void this.supabase.auth.signOut({ scope: 'local' })
    } else if (error?.code === 'mfa_required') this.phase = 'factor'
    else if (status === 403) this.phase = 'refused'
    else this.phase = 'broken'
  }

  async #authorised(request: Request): Promise<Response> {
    const { data } = (await this.#supabase?.auth.getSession()) ?? { data: { session: null } }
    if (data.session) request.headers.set('authorization', `Bearer ${data.session.access_token}`)
    const response = await fetch(request)
    // The right may have been taken away meanwhile.
    if (this.phase === 'in' && (response.status === 401 || response.status === 403)) {
      const error = (await response.clone().json().catch(() => undefined)) as Refusal | undefined
      const ours = ['not_operator', 'session_ended', 'mfa_required', 'token_expired'].includes(error?.code ?? '')
      if (ours) this.#refuse(response.status, error)
    }
    return response
  }
}

/** An error in words, with what to do about it. */
export function text(error: unknown): string {
  const { message, hint } = (error ?? {}) as Refusal
  if (!message) return 'The server did not answer. Is it running?'
  return hint ? `${message}: ${hint}` : message
}

export const studio = new Studio()
