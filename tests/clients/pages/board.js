// A small application on the unmodified supabase-js: who is here, what is said, and which cards change.

const { url, key, token, name, vsn, board } = window.project
const supabase = window.supabase.createClient(url, key, {
  accessToken: async () => token,
  realtime: { vsn },
})
const byId = (id) => document.getElementById(id)

function log(text) {
  const item = document.createElement('li')
  item.textContent = text
  byId('log').append(item)
}

const channel = supabase.channel(`board-${board}`, {
  config: { private: true, broadcast: { ack: true }, presence: { key: name } },
})

channel
  .on('presence', { event: 'sync' }, () => {
    const people = Object.entries(channel.presenceState())
    byId('people').replaceChildren(...people.map(([key, metas]) => {
      const item = document.createElement('li')
      item.textContent = `${key} ${metas.map((meta) => meta.mood).join(' ')}`
      return item
    }))
  })
  .on('broadcast', { event: 'said' }, ({ payload }) => log(`said: ${payload.text}`))
  .on('broadcast', { event: 'opened' }, ({ payload }) => log(`opened: ${payload.text}`))
  .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'cards', filter: `board=eq.${board}` }, ({ new: card }) =>
    log(`new card: ${card.text}`))
  .on('postgres_changes', { event: 'UPDATE', schema: 'public', table: 'cards', filter: `board=eq.${board}` }, ({ new: card, old }) =>
    log(`card ${old.id === card.id ? 'changed' : 'confused'}: ${card.text} ${card.open ? 'open' : 'private'}`))
  .on('system', {}, ({ extension, status, message }) => log(`${extension} ${status}: ${message}`))
  .subscribe(async (status, error) => {
    byId('status').textContent = error ? `${status}: ${error.message}` : status
    if (status === 'SUBSCRIBED') log(`tracked: ${await channel.track({ mood: 'curious' })}`)
  })

byId('say').onsubmit = async (event) => {
  event.preventDefault()
  const sent = await channel.send({ type: 'broadcast', event: 'said', payload: { text: event.target.text.value } })
  log(`sent: ${sent}`)
}
byId('write').onsubmit = async (event) => {
  event.preventDefault()
  const { error } = await supabase.from('cards').insert({ board, text: event.target.text.value })
  log(error ? `refused: ${error.message}` : 'written')
}
byId('open').onclick = async () => {
  const { error } = await supabase.from('cards').update({ open: true }).eq('board', board).eq('open', false)
  log(error ? `refused: ${error.message}` : 'opened mine')
}
byId('leave').onclick = async () => {
  log(`left: ${await supabase.removeChannel(channel)}`)
}
