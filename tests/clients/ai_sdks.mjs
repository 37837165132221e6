// The vendors' own SDKs, unmodified, against the emulated vendors.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI, { toFile } from 'openai';

const key = process.env.LONGHOUSE_TEST_KEY;
const openai = new OpenAI({ apiKey: key, baseURL: process.env.LONGHOUSE_TEST_OPENAI_URL, maxRetries: 0 });
const anthropic = new Anthropic({ apiKey: key, baseURL: process.env.LONGHOUSE_TEST_ANTHROPIC_URL, maxRetries: 0 });

const parameters = {
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
  additionalProperties: false,
};
const names = ['weather', 'time'];

async function chatCompletions() {
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'weather and time in Rome' },
  ];
  const tools = names.map((name) => ({ type: 'function', function: { name, parameters, strict: true } }));
  const first = await openai.chat.completions.create({ model: 'gpt-5-mini', messages, tools });
  const { message, finish_reason: reason } = first.choices[0];
  assert.equal(reason, 'tool_calls');
  assert.deepEqual(message.tool_calls.map((call) => call.function.name), names);
  messages.push(message);
  for (const call of message.tool_calls) {
    messages.push({ role: 'tool', tool_call_id: call.id, content: `${call.function.name} is fine` });
  }
  const stream = openai.chat.completions.stream({ model: 'gpt-5-mini', messages, tools });
  let pieces = 0;
  stream.on('content', () => (pieces += 1));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, 'I looked: weather is fine; time is fine');
  assert.ok(pieces > 2);
  messages.splice(3, 1);
  await assert.rejects(
    openai.chat.completions.create({ model: 'gpt-5-mini', messages, tools }),
    (error) => error instanceof OpenAI.BadRequestError && /did not have response messages/.test(error.message),
  );
}

async function responses() {
  const tools = names.map((name) => ({ type: 'function', name, parameters, strict: true }));
  const input = [{ role: 'user', content: 'weather and time in Rome' }];
  const options = { model: 'gpt-5-mini', store: false, include: ['reasoning.encrypted_content'], tools };
  const first = await openai.responses.create({ ...options, input });
  const calls = first.output.filter((item) => item.type === 'function_call');
  assert.deepEqual(calls.map((call) => call.name), names);
  input.push(...first.output);
  for (const call of calls) {
    input.push({ type: 'function_call_output', call_id: call.call_id, output: `${call.name} is fine` });
  }
  const stream = openai.responses.stream({ ...options, input });
  const kinds = new Set();
  for await (const event of stream) kinds.add(event.type);
  assert.ok(kinds.has('response.output_text.delta') && kinds.has('response.completed'));
  assert.equal((await stream.finalResponse()).output_text, 'I looked: weather is fine; time is fine');
  const format = { type: 'json_schema', name: 'place', schema: parameters, strict: true };
  const shaped = await openai.responses.create({ model: 'gpt-4.1', input: 'Rome', text: { format } });
  assert.deepEqual(JSON.parse(shaped.output_text), { city: 'Rome' });
}

async function media() {
  const speech = await openai.audio.speech.create({
    model: 'gpt-4o-mini-tts', voice: 'coral', input: 'Good night, little fox.', response_format: 'wav',
  });
  const wav = Buffer.from(await speech.arrayBuffer());
  const file = await toFile(wav, 'night.wav', { type: 'audio/wav' });
  const heard = await openai.audio.transcriptions.create({ model: 'gpt-transcribe', file });
  assert.equal(heard.text, 'Good night, little fox.');
  const vectors = await openai.embeddings.create({ model: 'text-embedding-3-small', input: ['a', 'b'], dimensions: 64 });
  assert.deepEqual(vectors.data.map((one) => one.embedding.length), [64, 64]);
  const images = await openai.images.generate({ model: 'gpt-image-1', prompt: 'a fox', size: '1024x1024' });
  const png = Buffer.from(images.data[0].b64_json, 'base64');
  assert.equal(png.subarray(1, 4).toString(), 'PNG');
  const image = await toFile(png, 'fox.png', { type: 'image/png' });
  assert.equal((await openai.images.edit({ model: 'gpt-image-1', prompt: 'a hat', image })).data.length, 1);
  const judged = await openai.moderations.create({ model: 'omni-moderation-latest', input: 'I will murder you' });
  assert.equal(judged.results[0].flagged, true);
  assert.ok((await openai.models.list()).data.length > 0);
}

async function messages() {
  const tools = names.map((name) => ({ name, input_schema: parameters }));
  const conversation = [{ role: 'user', content: 'weather and time in Rome' }];
  const options = { model: 'claude-haiku-5-5', max_tokens: 500, system: 'Be brief.', tools };
  const first = await anthropic.messages.create({ ...options, messages: conversation });
  assert.equal(first.stop_reason, 'tool_use');
  const calls = first.content.filter((block) => block.type === 'tool_use');
  assert.deepEqual(calls.map((call) => call.name), names);
  conversation.push({ role: 'assistant', content: first.content });
  conversation.push({
    role: 'user',
    content: calls.map((call) => ({ type: 'tool_result', tool_use_id: call.id, content: `${call.name} is fine` })),
  });
  const stream = anthropic.messages.stream({ ...options, messages: conversation });
  let pieces = 0;
  stream.on('text', () => (pieces += 1));
  const final = await stream.finalMessage();
  assert.equal(final.content[0].text, 'I looked: weather is fine; time is fine');
  assert.ok(pieces > 2 && final.usage.output_tokens > 0);
  const format = { type: 'json_schema', schema: parameters };
  const shaped = await anthropic.messages.create({
    model: 'claude-haiku-5-5', max_tokens: 100, messages: [{ role: 'user', content: 'Rome' }], output_config: { format },
  });
  assert.deepEqual(JSON.parse(shaped.content[0].text), { city: 'Rome' });
  await assert.rejects(
    anthropic.messages.create({ ...options, messages: conversation.slice(0, 2).concat({ role: 'user', content: 'and?' }) }),
    (error) => error instanceof Anthropic.BadRequestError && /without `tool_result` blocks/.test(error.message),
  );
  await assert.rejects(
    new Anthropic({ apiKey: 'wrong', baseURL: anthropic.baseURL, maxRetries: 0 }).models.list(),
    (error) => error instanceof Anthropic.AuthenticationError,
  );
  let count = 0;
  for await (const model of anthropic.models.list()) count += model.type === 'model' ? 1 : 0;
  assert.ok(count > 0);
}

for (const scenario of [chatCompletions, responses, media, messages]) {
  await scenario();
  console.log(`${scenario.name}: fine`);
}
