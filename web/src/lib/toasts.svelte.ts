// Short messages about what was done, or could not be.

export interface Toast {
  id: number
  kind: 'good' | 'bad'
  message: string
}

let last = 0
export const toasts = $state<Toast[]>([])

function show(kind: Toast['kind'], message: string, milliseconds: number): void {
  const id = (last += 1)
  toasts.push({ id, kind, message })
  if (toasts.length > 4) toasts.shift()
  setTimeout(() => dismiss(id), milliseconds)
}

export function dismiss(id: number): void {
  const place = toasts.findIndex((toast) => toast.id === id)
  if (place >= 0) toasts.splice(place, 1)
}

export const done = (message: string): void => show('good', message, 5_000)
/** Errors stay long enough to be read. */
export const failed = (message: string): void => show('bad', message, 12_000)
