// Runs the official OpenAI SDK for JavaScript against a gateway and prints what each case saw, as one JSON object.
// tests/sdk/test_openai_javascript.py starts it, with BASE_URL, API_KEY, LIMITED_KEY and WORKERS in the environment.
import OpenAI from "openai";

const { BASE_URL, API_KEY, LIMITED_KEY, WORKERS } = process.env;
const messages = [{ role: "user", content: "Hello" }];
const sdk = (apiKey) => new OpenAI({ baseURL: BASE_URL, apiKey, maxRetries: 0, timeout: 20_000 });
const client = sdk(API_KEY);

async function collect(stream) {
  const seen = { text: "", chunks: 0, models: new Set(), withUsage: [] };
  for await (const chunk of stream) {
    seen.chunks += 1;
    seen.models.add(chunk.model);
    seen.text += chunk.choices[0]?.delta?.content ?? "";
    if (chunk.usage) seen.withUsage.push({ choices: chunk.choices.length, usage: chunk.usage });
  }
  return { ...seen, models: [...seen.models] };
}

function ofError(error) {
  return {
    raised: error.constructor.name,
    status: error.status,
    code: error.code,
    type: error.type,
    param: error.param,
    requestId: error.requestID,
    retryAfter: error.headers?.get("retry-after"),
  };
}

const cases = {
  async chat() {
    const answer = await client.chat.completions.create({ model: "tiny", messages });
    const { model, usage, choices, _request_id } = answer;
    return { model, usage, text: choices[0].message.content, finish: choices[0].finish_reason, requestId: _request_id };
  },
  async stream() {
    const request = client.chat.completions.create({ model: "tiny", messages, stream: true });
    const { data, response } = await request.withResponse();
    return { ...(await collect(data)), requestId: response.headers.get("x-request-id") };
  },
  async streamWithUsage() {
    const stream_options = { include_usage: true };
    return collect(await client.chat.completions.create({ model: "tiny", messages, stream: true, stream_options }));
  },
  async slash() {
    return { model: (await client.chat.completions.create({ model: "vendor/tiny", messages })).model };
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids };
  },
  async model() {
    return { id: (await client.models.retrieve("tiny")).id };
  },
  async modelWithSlash() {
    return { id: (await client.models.retrieve("vendor/tiny")).id };
  },
  async rawResponse() {
    const { data, response, request_id } = await client.chat.completions
      .create({ model: "tiny", messages })
      .withResponse();
    return { header: response.headers.get("x-request-id"), requestId: request_id, onAnswer: data._request_id };
  },
  async untouched() {
    const extra = { enable_thinking: true, top_k: 5, chat_template_kwargs: { thinking: false }, x: null };
    await client.chat.completions.create({ model: "vendor/recorded", messages, seed: 7, ...extra });
    return { sent: { model: "upstream-model", messages, seed: 7, ...extra } };
  },
  async badKey() {
    return sdk("sk-kodna-wrong").chat.completions.create({ model: "tiny", messages });
  },
  async unknownModel() {
    return client.chat.completions.create({ model: "none", messages });
  },
  async noMessages() {
    return client.chat.completions.create({ model: "tiny" });
  },
  async wrongType() {
    return client.chat.completions.create({ model: "tiny", messages: "Hello" });
  },
  async tooMany() {
    const limited = sdk(LIMITED_KEY);
    for (let sent = 0; sent <= Number(WORKERS); sent += 1) {
      await limited.chat.completions.create({ model: "tiny", messages }); // counted in each process
    }
    return {};
  },
};

const results = {};
for (const [name, run] of Object.entries(cases)) {
  results[name] = await run().catch(ofError);
}
console.log(JSON.stringify(results));
