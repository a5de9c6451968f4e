// Where the SDKs knock, and what is then said; from `run.py`, by the environment.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { z } from "zod";

export const cases = JSON.parse(process.env.CASES);
const doors = JSON.parse(process.env.DOORS);

/** Runs `tests` once at the scripted provider of the SDK's own dialect, then at the gateway before each of the four. */
export function atEachDoor(what, dialect, tests) {
  for (const door of doors.filter((door) => !door.direct || door.dialect === dialect)) {
    const model = (name) => (door.direct ? name : `${door.dialect}-${name}`);
    describe(`${what}, ${door.direct ? "direct" : `to ${door.dialect}`}`, () => tests({ ...door, model }));
  }
}

/** As `cases.Guest` in Python. */
export const Guest = z.object({
  name: z.string(),
  age: z.number().int(),
  address: z.object({ city: z.string(), known: z.boolean() }),
  scores: z.array(z.number()),
});

export const names = Object.keys(cases.tools);
export const made = { tools: 1, parallel: 2 };
export const image = Buffer.from(cases.image, "base64");
export const afterThoughts = (signed = true) => cases.saidAfterThoughts[String(signed)];

/** `seen`: calls as {name, arguments}. */
export function assertCalls(seen, turn) {
  assert.deepEqual(seen, cases.calls.slice(0, made[turn]));
}

export async function fails(promise, check) {
  await assert.rejects(promise, (error) => {
    check(error);
    return true;
  });
}
