// Anthropic's SDK for JavaScript.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { afterThoughts, assertCalls, atEachDoor, cases, fails, Guest, names } from "./doors.mjs";

const messages = [{ role: "user", content: cases.hello }];
const tools = names.map((name) => ({ name, description: name, input_schema: cases.tools[name] }));
const errors = { 400: Anthropic.BadRequestError, 429: Anthropic.RateLimitError, 500: Anthropic.InternalServerError };
const text = (answer) => answer.content.map((block) => block.text ?? "").join("");
const uses = (answer) => answer.content.filter((block) => block.type === "tool_use");
const calls = (answer) => uses(answer).map((block) => ({ name: block.name, arguments: block.input }));

function back(answer) {
  const content = uses(answer).map((block) => ({
    type: "tool_result",
    tool_use_id: block.id,
    content: cases.results[block.name],
  }));
  return [...messages, { role: "assistant", content: answer.content }, { role: "user", content }];
}

atEachDoor("anthropic", "messages", (door) => {
  const client = new Anthropic({ baseURL: door.root, apiKey: door.key, maxRetries: 0, timeout: 20_000 });
  const base = (name) => ({ model: door.model(name), max_tokens: 100, messages });
  const ask = (asked, streamed) =>
    streamed ? client.messages.stream(asked).finalMessage() : client.messages.create(asked);

  function assertUsage({ usage }) {
    const { prompt, completion, cached } = cases.tokens;
    const seen = [usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens];
    assert.deepEqual(seen, [prompt - cached, cached, completion]);
  }

  test("chat", async () => {
    const answer = await client.messages.create({ ...base("text"), system: cases.system });
    assert.deepEqual([text(answer), answer.stop_reason], [cases.text, "end_turn"]);
    assertUsage(answer);
  });

  test("stream", async () => {
    const stream = client.messages.stream({ ...base("text"), system: cases.system });
    let said = "";
    stream.on("text", (piece) => (said += piece));
    const answer = await stream.finalMessage();
    assert.deepEqual([said, text(answer)], [cases.text, cases.text]);
    assertUsage(answer);
  });

  for (const streamed of [false, true]) {
    for (const turn of ["tools", "parallel"]) {
      test(`${turn}${streamed ? ", streamed" : ""}`, async () => {
        const asked = { ...base(turn), tools };
        const answer = await ask(asked, streamed);
        assertCalls(calls(answer), turn);
        assert.equal(answer.stop_reason, "tool_use");
        assert.equal(text(await ask({ ...asked, messages: back(answer) }, streamed)), cases.saidAfter[turn]);
      });
    }

    test(`thinking${streamed ? ", streamed" : ""}`, async () => {
      const thinking = { type: "enabled", budget_tokens: 2000 };
      const asked = { ...base("thinking"), max_tokens: 4000, tools, thinking };
      const answer = await ask(asked, streamed);
      const thoughts = answer.content.filter((block) => block.type === "thinking");
      assert.deepEqual(thoughts.map((block) => block.thinking), [cases.thought]);
      const after = await ask({ ...asked, messages: back(answer) }, streamed);
      assert.equal(text(after), afterThoughts());
    });
  }

  test("structured", async () => {
    const output_config = { format: zodOutputFormat(Guest) };
    const answer = await client.messages.parse({ ...base("structured"), output_config });
    assert.deepEqual(answer.parsed_output, cases.guest);
  });

  test("vision", async () => {
    const source = { type: "base64", media_type: "image/png", data: cases.image };
    const content = [{ type: "image", source }, { type: "text", text: "What is it?" }];
    const answer = await client.messages.create({ ...base("vision"), messages: [{ role: "user", content }] });
    assert.equal(text(answer), cases.seen);
  });

  test("count tokens", async () => {
    const counted = await client.messages.countTokens({ model: door.model("text"), messages, tools });
    assert.ok(counted.input_tokens > 0);
  });

  for (const [status, raised] of Object.entries(errors)) {
    test(`error ${status}`, async () => {
      const asked = base(`error-${status}`);
      await fails(ask(asked, false), (error) => assert.ok(error instanceof raised, String(error)));
      await fails(ask(asked, true), (error) => assert.ok(error instanceof raised, String(error)));
    });
  }

  for (const name of ["error-stream", "cut"]) {
    test(name, async () => {
      await fails(ask(base(name), true), (error) => assert.ok(error instanceof Anthropic.AnthropicError, String(error)));
    });
  }
});
