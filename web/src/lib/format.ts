// How figures and times are written.

const numbers = new Intl.NumberFormat('en')
const units = ['B', 'kB', 'MB', 'GB', 'TB']

/** 12345 → `12,345`. */
export function count(value: number): string {
  return numbers.format(value)
}

const money = new Intl.NumberFormat('en', { style: 'currency', currency: 'USD' })

/** 0.0123 → `$0.0123`; from a dollar on in cents. */
export function dollars(value: number): string {
  return value === 0 || value >= 1 ? money.format(value) : `$${Number(value.toPrecision(3))}`
}

/** 1_500_000 → `1.5 MB`. */
export function bytes(value: number): string {
  let unit = 0
  let size = value
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000
    unit += 1
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`
}

/** 93784 → `1 d 2 h`. */
export function duration(seconds: number): string {
  const parts: [number, string][] = [
    [Math.floor(seconds / 86400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [Math.floor(seconds) % 60, 's'],
  ]
  const first = parts.findIndex(([value]) => value > 0)
  if (first < 0) return '0 s'
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(' ')
}

const days = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' })
const exact = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })

/** `21 Nov 2026, 21:30`. */
export function when(time: string | null | undefined): string {
  return time ? days.format(new Date(time)) : '—'
}

/** `21:30:05`, of today's entries. */
export function clock(time: string): string {
  return exact.format(new Date(time))
}

/** `3 hours ago`. */
export function ago(time: string | null | undefined): string {
  if (!time) return 'never'
  const seconds = (new Date(time).getTime() - Date.now()) / 1000
  const steps: [number, Intl.RelativeTimeFormatUnit][] = [
    [60, 'second'],
    [3600, 'minute'],
    [86400, 'hour'],
    [2592000, 'day'],
    [31536000, 'month'],
  ]
  let size = 1
  for (const [limit, unit] of steps) {
    if (Math.abs(seconds) < limit) return relative.format(Math.round(seconds / size), unit)
    size = limit
  }
  return relative.format(Math.round(seconds / 31536000), 'year')
}
