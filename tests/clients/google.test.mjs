// Google's SDK for JavaScript, @google/genai, which gemini-cli stands on.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, GoogleGenAI } from "@google/genai";
import { afterThoughts, assertCalls, atEachDoor, cases, fails, names } from "./doors.mjs";

const contents = [{ role: "user", parts: [{ text: cases.hello }] }];
const functionDeclarations = names.map((name) => ({
  name,
  description: name,
  parametersJsonSchema: cases.tools[name],
}));
const tools = [{ functionDeclarations }];
const text = (parts) => parts.map((part) => (part.thought ? "" : (part.text ?? ""))).join("");
const thoughts = (parts) => parts.map((part) => (part.thought ? part.text : "")).join("");
const called = (parts) => parts.filter((part) => part.functionCall);
const calls = (parts) => called(parts).map(({ functionCall: call }) => ({ name: call.name, arguments: call.args }));

function back(parts) {
  const answers = called(parts).map(({ functionCall: { id, name } }) => ({
    functionResponse: { id, name, response: { output: cases.results[name] } },
  }));
  return [...contents, { role: "model", parts }, { role: "user", parts: answers }];
}

atEachDoor("google genai", "gemini", (door) => {
  const { models } = new GoogleGenAI({ apiKey: door.key, httpOptions: { baseUrl: door.root } });

  async function ask(asked, streamed) {
    if (!streamed) return (await models.generateContent(asked)).candidates[0].content.parts;
    const parts = [];
    for await (const chunk of await models.generateContentStream(asked)) {
      parts.push(...(chunk.candidates?.[0]?.content?.parts ?? []));
    }
    return parts;
  }

  test("chat", async () => {
    const config = { systemInstruction: cases.system };
    const answer = await models.generateContent({ model: door.model("text"), contents, config });
    assert.equal(answer.text, cases.text);
    const { promptTokenCount, candidatesTokenCount, cachedContentTokenCount } = answer.usageMetadata;
    const { prompt, completion, cached } = cases.tokens;
    assert.deepEqual([promptTokenCount, candidatesTokenCount, cachedContentTokenCount], [prompt, completion, cached]);
  });

  test("stream", async () => {
    const config = { systemInstruction: cases.system };
    const parts = await ask({ model: door.model("text"), contents, config }, true);
    assert.equal(text(parts), cases.text);
    assert.ok(parts.length > 3, "not streamed");
  });

  for (const streamed of [false, true]) {
    for (const turn of ["tools", "parallel"]) {
      test(`${turn}${streamed ? ", streamed" : ""}`, async () => {
        const asked = { model: door.model(turn), contents, config: { tools } };
        const parts = await ask(asked, streamed);
        assertCalls(calls(parts), turn);
        assert.equal(text(await ask({ ...asked, contents: back(parts) }, streamed)), cases.saidAfter[turn]);
      });
    }

    test(`thinking${streamed ? ", streamed" : ""}`, async () => {
      const config = { tools, thinkingConfig: { includeThoughts: true, thinkingBudget: 2000 }, maxOutputTokens: 4000 };
      const asked = { model: door.model("thinking"), contents, config };
      const parts = await ask(asked, streamed);
      assert.equal(thoughts(parts), cases.thought);
      assert.equal(text(await ask({ ...asked, contents: back(parts) }, streamed)), afterThoughts());
    });
  }

  test("structured", async () => {
    const config = { responseMimeType: "application/json", responseJsonSchema: cases.schema };
    const answer = await models.generateContent({ model: door.model("structured"), contents, config });
    assert.deepEqual(JSON.parse(answer.text), cases.guest);
  });

  test("vision", async () => {
    const parts = [{ inlineData: { mimeType: "image/png", data: cases.image } }, { text: "What is it?" }];
    const answer = await models.generateContent({ model: door.model("vision"), contents: [{ role: "user", parts }] });
    assert.equal(answer.text, cases.seen);
  });

  for (const status of [400, 429, 500]) {
    test(`error ${status}`, async () => {
      const check = (error) => {
        assert.ok(error instanceof ApiError, String(error));
        assert.ok(error.status === status || (status === 500 && error.status > 500), String(error.status));
      };
      const asked = { model: door.model(`error-${status}`), contents };
      await fails(ask(asked, false), check);
      await fails(ask(asked, true), check);
    });
  }

  for (const name of ["error-stream", "cut"]) {
    test(name, async () => {
      await fails(ask({ model: door.model(name), contents }, true), (error) => assert.ok(error instanceof Error));
    });
  }
});
