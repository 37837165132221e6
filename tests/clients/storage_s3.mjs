// The AWS SDK against /storage/v1/s3: the operator's key, and a user's session under policies.
import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand, CompleteMultipartUploadCommand, CopyObjectCommand, CreateBucketCommand,
  CreateMultipartUploadCommand, DeleteBucketCommand, DeleteObjectCommand, DeleteObjectsCommand,
  GetBucketLocationCommand, GetObjectCommand, HeadBucketCommand, HeadObjectCommand, ListBucketsCommand,
  ListMultipartUploadsCommand, ListObjectsCommand, ListObjectsV2Command, ListPartsCommand, PutObjectCommand,
  S3Client, UploadPartCommand, UploadPartCopyCommand
} from '@aws-sdk/client-s3'

const endpoint = `${process.env.LONGHOUSE_TEST_API_URL}/storage/v1/s3`
const client = (credentials) =>
  new S3Client({ endpoint, credentials, region: 'local', forcePathStyle: true, maxAttempts: 1 })
const operator = client({ accessKeyId: 'operator', secretAccessKey: 'an-operators-secret-of-forty-characters' })
const ask = (command) => operator.send(command)
const refused = async (promise, name, status) => {
  const error = await promise.then(() => assert.fail(`${name} was expected`), (error) => error)
  assert.equal(error.name, name)
  assert.equal(error.$metadata.httpStatusCode, status)
}

const Bucket = 'by-sdk'
await ask(new CreateBucketCommand({ Bucket }))
await refused(ask(new CreateBucketCommand({ Bucket })), 'BucketAlreadyExists', 409)
await ask(new HeadBucketCommand({ Bucket }))
await refused(ask(new HeadBucketCommand({ Bucket: 'nowhere' })), 'NotFound', 404)
assert.ok((await ask(new ListBucketsCommand({}))).Buckets.some((one) => one.Name === Bucket))
assert.ok((await ask(new GetBucketLocationCommand({ Bucket }))).LocationConstraint)

// A text, a stream of unknown hash (chunked, with a checksum behind it), an odd name.
const Key = "folder/it's (1) + 100&a=b.txt"
const put = await ask(new PutObjectCommand({
  Bucket, Key, Body: 'hello world', ContentType: 'text/plain', CacheControl: 'max-age=60', Metadata: { mood: 'calm' }
}))
const large = Buffer.alloc(3_000_000, 'abc')
await ask(new PutObjectCommand({
  Bucket, Key: 'stream', Body: Readable.from([large]), ContentLength: large.length
}))
const got = await ask(new GetObjectCommand({ Bucket, Key }))
assert.equal(await got.Body.transformToString(), 'hello world')
assert.deepEqual(
  [got.ETag, got.ContentType, got.CacheControl, got.ContentLength, got.Metadata.mood],
  [put.ETag, 'text/plain', 'max-age=60', 11, 'calm']
)
const streamed = await ask(new GetObjectCommand({ Bucket, Key: 'stream' }))
assert.ok(Buffer.from(await streamed.Body.transformToByteArray()).equals(large))
const part = await ask(new GetObjectCommand({ Bucket, Key, Range: 'bytes=6-' }))
assert.equal(`${await part.Body.transformToString()} ${part.ContentRange}`, 'world bytes 6-10/11')
await refused(ask(new GetObjectCommand({ Bucket, Key, Range: 'bytes=11-' })), 'InvalidRange', 416)
await refused(ask(new GetObjectCommand({ Bucket, Key, IfMatch: '"x"' })), 'PreconditionFailed', 412)
await refused(ask(new HeadObjectCommand({ Bucket, Key: 'never' })), 'NotFound', 404)
await refused(ask(new GetObjectCommand({ Bucket, Key: 'never' })), 'NoSuchKey', 404)
await refused(ask(new PutObjectCommand({ Bucket, Key, Body: 'x', IfNoneMatch: '*' })), 'PreconditionFailed', 412)
assert.equal((await ask(new HeadObjectCommand({ Bucket, Key }))).LastModified instanceof Date, true)

// Listings, by both versions, in pages.
for (const name of ['a', 'b', 'c/1', 'c/2']) await ask(new PutObjectCommand({ Bucket, Key: name, Body: name }))
const level = await ask(new ListObjectsV2Command({ Bucket, Delimiter: '/' }))
assert.deepEqual(level.CommonPrefixes.map((one) => one.Prefix), ['c/', 'folder/'])
assert.deepEqual(level.Contents.map((one) => one.Key), ['a', 'b', 'stream'])
const keys = []
let ContinuationToken
do {
  const page = await ask(new ListObjectsV2Command({ Bucket, MaxKeys: 2, ContinuationToken }))
  keys.push(...page.Contents.map((one) => one.Key))
  ContinuationToken = page.NextContinuationToken
} while (ContinuationToken)
assert.deepEqual(keys, ['a', 'b', 'c/1', 'c/2', Key, 'stream'])
const old = await ask(new ListObjectsCommand({ Bucket, Prefix: 'c/', MaxKeys: 1, EncodingType: 'url' }))
assert.deepEqual([old.Contents[0].Key, old.IsTruncated], ['c/1', true])
const next = await ask(new ListObjectsCommand({ Bucket, Prefix: 'c/', Marker: 'c/1' }))
assert.deepEqual(next.Contents.map((one) => one.Key), ['c/2'])

// Copies, with and without a new description.
const CopySource = `${Bucket}/${encodeURIComponent(Key)}`
await ask(new CopyObjectCommand({ Bucket, Key: 'copy', CopySource }))
assert.equal((await ask(new HeadObjectCommand({ Bucket, Key: 'copy' }))).Metadata.mood, 'calm')
await ask(new CopyObjectCommand({
  Bucket, Key: 'copy', CopySource, MetadataDirective: 'REPLACE', ContentType: 'text/css', Metadata: { mood: 'new' }
}))
const copied = await ask(new HeadObjectCommand({ Bucket, Key: 'copy' }))
assert.deepEqual([copied.ContentType, copied.Metadata.mood, copied.ETag], ['text/css', 'new', put.ETag])

// Parts: sent, sent again, copied, listed, joined.
const { UploadId } = await ask(new CreateMultipartUploadCommand({ Bucket, Key: 'parts', ContentType: 'video/mp4' }))
const one = (PartNumber, Body) => ask(new UploadPartCommand({ Bucket, Key: 'parts', UploadId, PartNumber, Body }))
await one(1, 'not this')
const [third, first] = await Promise.all([one(3, 'end'), one(1, large)])
const second = await ask(new UploadPartCopyCommand({
  Bucket, Key: 'parts', UploadId, PartNumber: 2, CopySource, CopySourceRange: 'bytes=0-4'
}))
const listed = await ask(new ListPartsCommand({ Bucket, Key: 'parts', UploadId }))
assert.deepEqual(listed.Parts.map((part) => part.Size), [large.length, 5, 3])
const open = await ask(new ListMultipartUploadsCommand({ Bucket }))
assert.deepEqual(open.Uploads.map((upload) => upload.Key), ['parts'])
const complete = (Parts) =>
  ask(new CompleteMultipartUploadCommand({ Bucket, Key: 'parts', UploadId, MultipartUpload: { Parts } }))
const named = [
  { PartNumber: 1, ETag: first.ETag },
  { PartNumber: 2, ETag: second.CopyPartResult.ETag },
  { PartNumber: 3, ETag: third.ETag }
]
await refused(complete([named[1], named[0]]), 'InvalidPartOrder', 400)
await refused(complete([{ PartNumber: 1, ETag: third.ETag }]), 'InvalidPart', 400)
await complete(named)
const joined = await ask(new GetObjectCommand({ Bucket, Key: 'parts' }))
assert.equal(joined.ContentType, 'video/mp4')
assert.ok(Buffer.from(await joined.Body.transformToByteArray()).equals(Buffer.concat([large, Buffer.from('helloend')])))
await refused(complete(named), 'NoSuchUpload', 404)
const given = await ask(new CreateMultipartUploadCommand({ Bucket, Key: 'never' }))
await ask(new AbortMultipartUploadCommand({ Bucket, Key: 'never', UploadId: given.UploadId }))
assert.equal((await ask(new ListMultipartUploadsCommand({ Bucket }))).Uploads, undefined)

// A session is a user: policies decide.
const sessionToken = process.env.LONGHOUSE_TEST_TOKEN
const user = client({ accessKeyId: 'project', secretAccessKey: process.env.LONGHOUSE_TEST_ANON_KEY, sessionToken })
const own = `${process.env.LONGHOUSE_TEST_USER}/own.txt`
await refused(user.send(new PutObjectCommand({ Bucket: 'people', Key: 'foreign.txt', Body: 'x' })), 'AccessDenied', 403)
await user.send(new PutObjectCommand({ Bucket: 'people', Key: own, Body: 'mine' }))
await ask(new PutObjectCommand({ Bucket: 'people', Key: 'foreign.txt', Body: 'x' }))
assert.deepEqual((await user.send(new ListObjectsV2Command({ Bucket: 'people' }))).Contents.map((one) => one.Key), [own])
await refused(user.send(new GetObjectCommand({ Bucket: 'people', Key: 'foreign.txt' })), 'NoSuchKey', 404)

// Away with it all.
await refused(ask(new DeleteBucketCommand({ Bucket })), 'BucketNotEmpty', 409)
await ask(new DeleteObjectCommand({ Bucket, Key: 'never' }))
const everything = await ask(new ListObjectsV2Command({ Bucket }))
const gone = await ask(new DeleteObjectsCommand({
  Bucket, Delete: { Objects: [...everything.Contents.map((one) => ({ Key: one.Key })), { Key: 'never' }] }
}))
assert.deepEqual([gone.Deleted.length, gone.Errors], [everything.Contents.length + 1, undefined])
await ask(new DeleteBucketCommand({ Bucket }))
console.log('done')
