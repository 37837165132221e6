// Uploads a large file with tus-js-client: pauses, goes on, and goes on again after somebody has killed the server.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import * as tus from 'tus-js-client'

const api = process.env.LONGHOUSE_TEST_API_URL
const key = process.env.LONGHOUSE_TEST_SERVICE_KEY
const file = process.env.LONGHOUSE_TEST_FILE
const headers = { apikey: key, authorization: `Bearer ${key}` }
const chunkSize = Number(process.env.LONGHOUSE_TEST_CHUNK ?? 6 * 1024 * 1024)
const bucket = 'resumable'
const name = 'folder/large file.bin'

async function hashOf(stream) {
  const hash = createHash('sha256')
  await pipeline(stream, hash)
  return hash.digest('hex')
}

const made = await fetch(`${api}/storage/v1/bucket`, {
  method: 'POST',
  headers: { ...headers, 'content-type': 'application/json' },
  body: JSON.stringify({ name: bucket, public: false })
})
if (!made.ok) throw new Error(`no bucket: ${await made.text()}`)

const { size } = await stat(file)
let sent = 0
let paused = false
let killed = false
const started = performance.now()
await new Promise((resolve, reject) => {
  const upload = new tus.Upload(createReadStream(file), {
    endpoint: `${api}/storage/v1/upload/resumable`,
    retryDelays: [100, 500, 1000, 2000, 4000, 8000, 8000],
    headers,
    // In one piece with its creation, an upload has no URL by which it could go on.
    uploadDataDuringCreation: Number.isFinite(chunkSize),
    chunkSize,
    uploadSize: size,
    metadata: { bucketName: bucket, objectName: name, contentType: 'application/zip', cacheControl: '60' },
    onError: reject,
    onProgress(bytes) {
      sent = bytes
      if (!paused && bytes > size / 4) {
        paused = true
        upload.abort().then(() => {
          console.log(`paused at ${bytes}`)
          upload.start()
        }, reject)
      } else if (!killed && bytes > size / 2) {
        killed = true
        console.log('kill the server')
      }
    },
    onAfterResponse(request, response) {
      if (request.getMethod() === 'HEAD') console.log(`goes on at ${response.getHeader('upload-offset')}`)
    },
    onSuccess: resolve
  })
  upload.start()
})
const seconds = (performance.now() - started) / 1000
if (sent !== size || !paused || !killed) throw new Error(`${sent} of ${size}, ${paused}, ${killed}`)

const path = `${bucket}/${name.split('/').map(encodeURIComponent).join('/')}`
const got = await fetch(`${api}/storage/v1/object/authenticated/${path}`, { headers })
if (!got.ok) throw new Error(`it is not there: ${await got.text()}`)
const [expected, actual] = [await hashOf(createReadStream(file)), await hashOf(got.body)]
if (expected !== actual) throw new Error(`other bytes: ${actual} instead of ${expected}`)
if (got.headers.get('etag') !== `"${expected}"`) throw new Error(`etag ${got.headers.get('etag')}`)
if (got.headers.get('content-type') !== 'application/zip') throw new Error(got.headers.get('content-type'))
console.log(`equal: ${size} bytes in ${seconds.toFixed(1)} s`)
