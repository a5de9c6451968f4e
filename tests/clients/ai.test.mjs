// Vercel's AI SDK, by each of its packages that speaks one of the formats.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { afterThoughts, assertCalls, atEachDoor, cases, fails, Guest, image, made, names } from "./doors.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const budget = 2000;
const packages = {
  "@ai-sdk/openai chat": {
    dialect: "chat",
    models: (door) => createOpenAI({ baseURL: `${door.root}/v1`, apiKey: door.key }).chat,
    options: {},
  },
  "@ai-sdk/openai responses": {
    dialect: "responses",
    models: (door) => createOpenAI({ baseURL: `${door.root}/v1`, apiKey: door.key }).responses,
    options: {},
    thinking: {
      openai: {
        forceReasoning: true,
        reasoningEffort: "high",
        reasoningSummary: "auto",
        store: false,
        include: ["reasoning.encrypted_content"],
      },
    },
  },
  "@ai-sdk/openai-compatible": {
    dialect: "chat",
    models: (door) =>
      createOpenAICompatible({
        name: "kodna",
        baseURL: `${door.root}/v1`,
        apiKey: door.key,
        includeUsage: true,
        supportsStructuredOutputs: true,
      }),
    options: {},
    thinking: { kodna: { reasoningEffort: "high" } },
    losesSignatures: true,
  },
  "@ai-sdk/anthropic": {
    dialect: "messages",
    models: (door) => createAnthropic({ baseURL: `${door.root}/v1`, apiKey: door.key }),
    options: { anthropic: { structuredOutputMode: "outputFormat" } },
    thinking: { anthropic: { thinking: { type: "enabled", budgetTokens: budget } } },
  },
  "@ai-sdk/google": {
    dialect: "gemini",
    models: (door) => createGoogleGenerativeAI({ baseURL: `${door.root}/v1beta`, apiKey: door.key }),
    options: {},
    thinking: { google: { thinkingConfig: { includeThoughts: true, thinkingBudget: budget } } },
  },
};

function toolsOf(turn, called) {
  const toolOf = (name) =>
    tool({
      description: name,
      inputSchema: jsonSchema(cases.tools[name]),
      execute: async (input) => {
        called.push({ name, arguments: input });
        return cases.results[name];
      },
    });
  return Object.fromEntries(names.slice(0, made[turn]).map((name) => [name, toolOf(name)]));
}

/** Without the JSON that @ai-sdk/google wraps around a tool's result. */
const plainly = (said) => said.replaceAll(/\{"name".*?"content": ?("(?:[^"\\]|\\.)*")\}/g, (_, result) => JSON.parse(result));

/** Generates or streams; what both then say in the same words. */
async function ask(asked, streamed) {
  const common = { maxRetries: 0, maxOutputTokens: 4000, stopWhen: stepCountIs(3), ...asked };
  if (!streamed) return generateText(common);
  const failures = [];
  const result = streamText({ ...common, onError: ({ error }) => failures.push(error) });
  const pieces = [];
  for await (const piece of result.textStream) pieces.push(piece);
  if (failures.length) throw failures[0];
  const { text, steps, totalUsage, output } = result;
  const usage = await totalUsage;
  return { text: await text, steps: await steps, usage, pieces, output: asked.output && (await output) };
}

for (const [name, { dialect, models, options, thinking, losesSignatures }] of Object.entries(packages)) {
  atEachDoor(name, dialect, (door) => {
    const model = (scenario) => models(door)(door.model(scenario));

    for (const streamed of [false, true]) {
      const how = streamed ? ", streamed" : "";

      test(`chat${how}`, async () => {
        const asked = { model: model("text"), system: cases.system, prompt: cases.hello };
        const answer = await ask(asked, streamed);
        assert.equal(answer.text, cases.text);
        if (streamed) assert.ok(answer.pieces.length > 3, "not streamed");
        const { inputTokens, outputTokens, inputTokenDetails } = answer.usage;
        const { prompt, completion, cached } = cases.tokens;
        assert.deepEqual([inputTokens, outputTokens, inputTokenDetails.cacheReadTokens], [prompt, completion, cached]);
      });

      for (const turn of ["tools", "parallel"]) {
        test(`${turn}${how}`, async () => {
          const called = [];
          const asked = { model: model(turn), prompt: cases.hello, tools: toolsOf(turn, called) };
          const answer = await ask(asked, streamed);
          assertCalls(called, turn);
          assert.equal(plainly(answer.text), cases.saidAfter[turn]);
        });
      }

      test(`structured${how}`, async () => {
        const output = Output.object({ schema: Guest });
        const asked = { model: model("structured"), prompt: cases.hello, output, providerOptions: options };
        assert.deepEqual((await ask(asked, streamed)).output, cases.guest);
      });

      if (!thinking) continue; // it has no word for thoughts

      test(`thinking${how}`, async () => {
        const called = [];
        const asked = { model: model("thinking"), prompt: cases.hello, tools: toolsOf("tools", called) };
        const answer = await ask({ ...asked, providerOptions: thinking }, streamed);
        // Responses shows thoughts only where a summary is asked for; chat has no word for that.
        const shown = dialect !== "chat" || door.dialect !== "responses";
        if (shown) assert.equal(answer.steps[0].reasoningText, cases.thought);
        assertCalls(called, "tools");
        const signed = !losesSignatures || door.direct || door.dialect === dialect;
        assert.equal(plainly(answer.text), afterThoughts(signed));
      });
    }

    test("vision", async () => {
      const content = [{ type: "text", text: "What is it?" }, { type: "image", image, mediaType: "image/png" }];
      const answer = await ask({ model: model("vision"), messages: [{ role: "user", content }] }, false);
      assert.equal(answer.text, cases.seen);
    });

    for (const status of [400, 429, 500]) {
      test(`error ${status}`, async () => {
        const check = (error) => {
          assert.ok(APICallError.isInstance(error), String(error));
          assert.ok(error.statusCode === status || (status === 500 && error.statusCode > 500), String(error.statusCode));
        };
        const asked = { model: model(`error-${status}`), prompt: cases.hello };
        await fails(ask(asked, false), check);
        await fails(ask(asked, true), check);
      });
    }

    for (const scenario of ["error-stream", "cut"]) {
      test(scenario, async () => {
        await fails(ask({ model: model(scenario), prompt: cases.hello }, true), (error) => assert.ok(error));
      });
    }
  });
}
