// Light, dark, or as the system has it. `static/theme.js` applies it before the first paint.

export type Theme = 'system' | 'light' | 'dark'

const KEY = 'longhouse.theme'

function stored(): Theme {
  const value = localStorage.getItem(KEY)
  return value === 'light' || value === 'dark' ? value : 'system'
}

let chosen = $state<Theme>(stored())

// Another tab, or whoever else changes it.
for (const event of ['storage', 'longhouse:theme']) addEventListener(event, () => (chosen = stored()))

export const theme = {
  get chosen(): Theme {
    return chosen
  },
  set chosen(value: Theme) {
    chosen = value
    if (value === 'system') localStorage.removeItem(KEY)
    else localStorage.setItem(KEY, value)
    dispatchEvent(new Event('longhouse:theme'))
  },
}
