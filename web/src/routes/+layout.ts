// Nothing is rendered without the browser's session.
export const ssr = false
export const prerender = false
