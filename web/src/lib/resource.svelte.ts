// Something that is fetched: what is there, what went wrong, and whether it is on its way.

import { text } from './session.svelte.ts'

interface Answer<T> {
  data?: T
  error?: unknown
}

export class Resource<T> {
  value = $state.raw<T>()
  error = $state('')
  loading = $state(false)
  #latest = 0

  /** Fetches; an answer that a later question has overtaken is dropped. */
  async load(ask: () => Promise<Answer<T>>): Promise<void> {
    const mine = (this.#latest += 1)
    this.loading = true
    let answer: Answer<T>
    try {
      answer = await ask()
    } catch (error) {
      answer = { error }
    }
    if (mine !== this.#latest) return
    this.loading = false
    if (answer.data !== undefined && answer.data !== null) {
      this.value = answer.data
      this.error = ''
    } else this.error = text(answer.error)
  }
}
