// OpenAI's SDK for JavaScript: chat completions and Responses.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { afterThoughts, assertCalls, atEachDoor, cases, fails, Guest, names } from "./doors.mjs";

const { tokens } = cases;
const messages = [
  { role: "system", content: cases.system },
  { role: "user", content: cases.hello },
];
const client = (door) => new OpenAI({ baseURL: `${door.root}/v1`, apiKey: door.key, maxRetries: 0, timeout: 20_000 });
const dataUrl = `data:image/png;base64,${cases.image}`;
const errors = { 400: OpenAI.BadRequestError, 429: OpenAI.RateLimitError, 500: OpenAI.InternalServerError };

// --- chat completions ------------------------------------------------------------------------------------------------

const chatTools = names.map((name) => ({
  type: "function",
  function: { name, description: name, parameters: cases.tools[name] },
}));
const chatCalls = (message) =>
  (message.tool_calls ?? []).map(({ function: call }) => ({ name: call.name, arguments: JSON.parse(call.arguments) }));

function chatBack(message) {
  const thoughts = Object.fromEntries(Object.entries(message).filter(([name]) => name.startsWith("reasoning")));
  const tool_calls = message.tool_calls?.map(({ id, type, function: call }) => ({
    id,
    type,
    function: { name: call.name, arguments: call.arguments },
  }));
  const results = (message.tool_calls ?? []).map((call) => ({
    role: "tool",
    tool_call_id: call.id,
    content: cases.results[call.function.name],
  }));
  return [...messages, { role: "assistant", content: message.content, tool_calls, ...thoughts }, ...results];
}

atEachDoor("openai chat", "chat", (door) => {
  const chat = client(door).chat.completions;
  const ask = (asked, streamed) => (streamed ? chat.stream(asked).finalChatCompletion() : chat.create(asked));

  test("chat", async () => {
    const answer = await chat.create({ model: door.model("text"), messages });
    assert.equal(answer.choices[0].message.content, cases.text);
    assert.equal(answer.usage.prompt_tokens_details.cached_tokens, tokens.cached);
    assert.deepEqual([answer.usage.prompt_tokens, answer.usage.completion_tokens], [tokens.prompt, tokens.completion]);
  });

  test("stream", async () => {
    const stream = chat.stream({ model: door.model("text"), messages, stream_options: { include_usage: true } });
    let text = "";
    stream.on("content", (piece) => (text += piece));
    const answer = await stream.finalChatCompletion();
    assert.equal(text, cases.text);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.completion_tokens, tokens.completion);
  });

  for (const streamed of [false, true]) {
    for (const turn of ["tools", "parallel"]) {
      test(`${turn}${streamed ? ", streamed" : ""}`, async () => {
        const asked = { model: door.model(turn), messages, tools: chatTools };
        const { message } = (await ask(asked, streamed)).choices[0];
        assertCalls(chatCalls(message), turn);
        const after = await ask({ ...asked, messages: chatBack(message) }, streamed);
        assert.equal(after.choices[0].message.content, cases.saidAfter[turn]);
      });
    }
  }

  test("structured", async () => {
    const response_format = zodResponseFormat(Guest, "guest");
    const answer = await chat.parse({ model: door.model("structured"), messages, response_format });
    assert.deepEqual(answer.choices[0].message.parsed, cases.guest);
  });

  test("vision", async () => {
    const content = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: dataUrl } }];
    const answer = await chat.create({ model: door.model("vision"), messages: [{ role: "user", content }] });
    assert.equal(answer.choices[0].message.content, cases.seen);
  });

  test("thinking", async () => {
    const asked = { model: door.model("thinking"), messages, tools: chatTools, reasoning_effort: "high" };
    const { message } = (await chat.create(asked)).choices[0];
    // Responses shows thoughts only where a summary is asked for; chat has no word for that.
    if (door.dialect !== "responses") assert.equal(message.reasoning_content, cases.thought);
    const after = await chat.create({ ...asked, messages: chatBack(message) });
    assert.equal(after.choices[0].message.content, afterThoughts());
  });

  for (const [status, raised] of Object.entries(errors)) {
    test(`error ${status}`, async () => {
      const asked = { model: door.model(`error-${status}`), messages };
      await fails(chat.create(asked), (error) => assert.ok(error instanceof raised, String(error)));
      await fails(chat.create({ ...asked, stream: true }), (error) => assert.ok(error instanceof raised, String(error)));
    });
  }

  for (const name of ["error-stream", "cut"]) {
    test(name, async () => {
      const stream = chat.stream({ model: door.model(name), messages });
      await fails(stream.finalChatCompletion(), (error) => assert.ok(error instanceof OpenAI.OpenAIError, String(error)));
    });
  }
});

// --- Responses -------------------------------------------------------------------------------------------------------

const input = [{ role: "user", content: cases.hello }];
const responsesTools = names.map((name) => ({
  type: "function",
  name,
  description: name,
  parameters: cases.tools[name],
  strict: false,
}));
const callItems = (answer) => answer.output.filter((item) => item.type === "function_call");
const responsesCalls = (answer) =>
  callItems(answer).map((item) => ({ name: item.name, arguments: JSON.parse(item.arguments) }));
const outputs = (answer) =>
  callItems(answer).map((item) => ({
    type: "function_call_output",
    call_id: item.call_id,
    output: cases.results[item.name],
  }));
const itemsBack = (answer) => answer.output.map(({ parsed_arguments, ...item }) => item);

atEachDoor("openai responses", "responses", (door) => {
  const { responses } = client(door);
  const ask = (asked, streamed) => (streamed ? responses.stream(asked).finalResponse() : responses.create(asked));

  test("chat", async () => {
    const answer = await responses.create({ model: door.model("text"), input, instructions: cases.system });
    assert.equal(answer.output_text, cases.text);
    assert.deepEqual(
      [answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.input_tokens_details.cached_tokens],
      [tokens.prompt, tokens.completion, tokens.cached],
    );
  });

  test("stream", async () => {
    const stream = responses.stream({ model: door.model("text"), input, instructions: cases.system });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const answer = await stream.finalResponse();
    assert.equal(text, cases.text);
    assert.equal(answer.status, "completed");
  });

  for (const streamed of [false, true]) {
    for (const turn of ["tools", "parallel"]) {
      test(`${turn}${streamed ? ", streamed" : ""}`, async () => {
        const asked = { model: door.model(turn), input, tools: responsesTools, store: false };
        const answer = await ask(asked, streamed);
        assertCalls(responsesCalls(answer), turn);
        const after = await ask({ ...asked, input: [...input, ...itemsBack(answer), ...outputs(answer)] }, streamed);
        assert.equal(after.output_text, cases.saidAfter[turn]);
      });
    }
  }

  test("a response that is kept", async () => {
    const asked = { model: door.model("parallel"), tools: responsesTools };
    const answer = await responses.create({ ...asked, input });
    const after = await responses.create({ ...asked, input: outputs(answer), previous_response_id: answer.id });
    assert.equal(after.output_text, cases.saidAfter.parallel);
  });

  test("structured", async () => {
    const text = { format: zodTextFormat(Guest, "guest") };
    const answer = await responses.parse({ model: door.model("structured"), input, text });
    assert.deepEqual(answer.output_parsed, cases.guest);
  });

  test("vision", async () => {
    const content = [
      { type: "input_text", text: "What is it?" },
      { type: "input_image", image_url: dataUrl, detail: "auto" },
    ];
    const answer = await responses.create({ model: door.model("vision"), input: [{ role: "user", content }] });
    assert.equal(answer.output_text, cases.seen);
  });

  for (const streamed of [false, true]) {
    test(`thinking${streamed ? ", streamed" : ""}`, async () => {
      const asked = { model: door.model("thinking"), input, tools: responsesTools, store: false };
      Object.assign(asked, { reasoning: { effort: "high", summary: "auto" }, include: ["reasoning.encrypted_content"] });
      const answer = await ask(asked, streamed);
      const [thought] = answer.output.filter((item) => item.type === "reasoning");
      assert.equal(thought.summary.map((part) => part.text).join(""), cases.thought);
      const after = await ask({ ...asked, input: [...input, ...itemsBack(answer), ...outputs(answer)] }, streamed);
      assert.equal(after.output_text, afterThoughts());
    });
  }

  for (const [status, raised] of Object.entries(errors)) {
    test(`error ${status}`, async () => {
      const asked = { model: door.model(`error-${status}`), input };
      await fails(responses.create(asked), (error) => assert.ok(error instanceof raised, String(error)));
    });
  }

  for (const name of ["error-stream", "cut"]) {
    test(name, async () => {
      const seen = [];
      const read = async () => {
        for await (const event of await responses.create({ model: door.model(name), input, stream: true })) {
          seen.push(event.type);
        }
      };
      // The SDK hands out `error` and `response.failed`; only a broken connection makes it throw.
      await read().catch((error) => seen.push(`thrown: ${error}`));
      assert.match(seen.at(-1), /^(error|response\.failed|thrown: .*)$/);
      assert.ok(!seen.includes("response.completed"));
    });
  }
});
