// Before the first paint: light or dark, as chosen here or by the system. Apart from the page, so that no inline
// script needs a permission.
(() => {
  const system = matchMedia('(prefers-color-scheme: dark)')
  const apply = () => {
    let chosen = null
    try {
      chosen = localStorage.getItem('longhouse.theme')
    } catch {
      // Storage may be switched off: the system decides.
    }
    const dark = chosen === 'dark' || (chosen !== 'light' && system.matches)
    document.documentElement.dataset.theme = dark ? 'dark' : 'light'
  }
  apply()
  system.addEventListener('change', apply)
  addEventListener('longhouse:theme', apply)
  addEventListener('storage', apply)
})()
