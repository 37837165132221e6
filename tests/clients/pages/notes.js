// A small application on the unmodified supabase-js: what it shows is all that its test looks at.

const { url, key, token } = window.project
// Failures are what this page is there to show: no second tries.
const options = { db: { retry: false }, ...(token && { accessToken: async () => token }) }
const supabase = window.supabase.createClient(url, key, options)

const PAGE = 2
const byId = (id) => document.getElementById(id)
let shown = PAGE

/** Says what happened; refusals in the alert, with what a developer would look at. */
function say(text, error, status) {
  byId('alert').textContent = error ? `${status} ${error.code}: ${error.message}` : ''
  byId('status').textContent = error ? 'refused' : text
}

/** A line per note: title, author and tags. */
function line(note) {
  const item = document.createElement('li')
  item.dataset.slug = note.slug
  const tags = note.tags.map((tag) => `#${tag.name}`)
  const words = [note.title, 'by', note.authors.name, ...tags, ...(note.published ? [] : ['(private)'])]
  const remove = document.createElement('button')
  remove.textContent = 'delete'
  remove.onclick = () => act(() => removeNote(note))
  item.append(words.join(' '), ' ', remove)
  return item
}

async function list(done) {
  const { data, count, error, status } = await supabase
    .from('notes')
    .select('slug, id, title, published, authors!inner(name), tags(name)', { count: 'exact' })
    .order('slug')
    .order('name', { referencedTable: 'tags' })
    .range(0, shown - 1)
  if (error) return say('', error, status)
  byId('notes').replaceChildren(...data.map(line))
  byId('count').textContent = `${data.length} of ${count}`
  say(done)
}

async function removeNote(note) {
  const { data, error, status } = await supabase.from('notes').delete().eq('id', note.id).select('title')
  if (error) return say('', error, status)
  await list(data.length ? `deleted ${data[0].title}` : 'nothing deleted')
}

async function write(form, how) {
  const note = { slug: form.slug.value, title: form.title.value }
  if (form.author.value) note.author_id = form.author.value
  const table = supabase.from('notes')
  const request = how === 'upsert' ? table.upsert(note, { onConflict: 'slug' }) : table.insert(note)
  const { data, error, status } = await request.select('id, title').single()
  if (error) return say('', error, status)
  await list(`${status} ${how} ${data.title}`)
}

async function search(term) {
  const { data, error, status } = await supabase
    .rpc('search_notes', { term })
    .select('title, authors(name)')
    .order('title')
    .limit(5)
  say(data?.map((note) => `${note.title} by ${note.authors.name}`).join(', ') || 'nothing found', error, status)
}

/** One thing at a time, so that what is shown belongs to what was asked last. */
async function act(what) {
  byId('status').textContent = 'loading'
  try {
    await what()
  } catch (error) {
    byId('alert').textContent = String(error)
    byId('status').textContent = 'failed'
  }
}

byId('write').onsubmit = (event) => {
  event.preventDefault()
  act(() => write(event.target, event.submitter.name))
}
byId('search').onsubmit = (event) => {
  event.preventDefault()
  act(() => search(event.target.term.value))
}
byId('publish').onclick = () => act(async () => {
  const { data, error, status } = await supabase.rpc('publish_all')
  if (error) return say('', error, status)
  await list(`${data} published`)
})
byId('more').onclick = () => act(() => { shown += PAGE; return list('more') })
byId('nowhere').onclick = () => act(async () => {
  const { error, status } = await supabase.from('archive').select()
  say('', error, status)
})

act(async () => {
  const authors = await supabase.from('authors').select('id, name').order('name')
  if (authors.error) return say('', authors.error, authors.status)
  byId('write').author.append(...authors.data.map(({ id, name }) => new Option(name, id)))
  await list('ready')
})
