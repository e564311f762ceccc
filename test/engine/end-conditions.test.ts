import { describe, expect, it } from "vitest";
import { EndConditions, type OutputEnd } from "../../src/engine/end-conditions.js";
import { makeRequest, type RequestFields } from "./requests.js";

function run(stop: RequestFields["stop"], ids: ArrayLike<number>, eosId?: number): { fed: number; end?: OutputEnd } {
  const conditions = new EndConditions(makeRequest({ ...(stop && { stop }) }).stop, eosId);
  for (let i = 0; i < ids.length; i++) {
    const end = conditions.push(ids[i]!);
    if (end !== undefined) return { fed: i + 1, end };
  }
  return { fed: ids.length };
}

const ab = Uint8Array.of(97, 98);

describe("EndConditions", () => {
  it.each([
    {
      name: "the length limit",
      stop: { maxNewBytes: 2 },
      ids: [1, 2, 3],
      fed: 2,
      end: { reason: "length", numHidden: 0 },
    },
    {
      name: "a stop sequence",
      stop: { stopSequences: [ab] },
      ids: [1, 97, 98, 4],
      fed: 3,
      end: { reason: "stop", numHidden: 2 },
    },
    {
      name: "a stop sequence that is kept",
      stop: { stopSequences: [ab], includeStop: true },
      ids: [97, 98],
      fed: 2,
      end: { reason: "stop", numHidden: 0 },
    },
    {
      name: "a stop sequence at the length limit",
      stop: { stopSequences: [ab], maxNewBytes: 2 },
      ids: [97, 98],
      fed: 2,
      end: { reason: "stop", numHidden: 2 },
    },
    {
      name: "a stop id",
      stop: { stopIds: [10] },
      ids: [1, 10],
      fed: 2,
      end: { reason: "stop", matchedStop: 10, numHidden: 1 },
    },
    {
      name: "a stop id that is kept",
      stop: { stopIds: [10], includeStop: true },
      ids: [10],
      fed: 1,
      end: { reason: "stop", numHidden: 0 },
    },
    {
      name: "a stop id that is no byte",
      stop: { stopIds: [256], includeStop: true },
      ids: [256],
      fed: 1,
      end: { reason: "stop", numHidden: 1 },
    },
    {
      name: "the model's end id",
      stop: {},
      ids: [5, 3],
      eosId: 3,
      fed: 2,
      end: { reason: "stop", matchedStop: 3, numHidden: 1 },
    },
    {
      name: "a stop sequence only after minNewBytes",
      stop: { stopSequences: [ab], minNewBytes: 3 },
      ids: [97, 98, 97, 98],
      fed: 4,
      end: { reason: "stop", numHidden: 2 },
    },
    {
      name: "a stop sequence completed at minNewBytes",
      stop: { stopSequences: [ab], minNewBytes: 2 },
      ids: [97, 98],
      fed: 2,
      end: { reason: "stop", numHidden: 2 },
    },
  ])("ends with $name", ({ stop, ids, eosId, fed, end }) => {
    const result = run(stop, ids, eosId);
    expect(result.fed).toBe(fed);
    expect(result.end).toMatchObject(end);
  });

  it("passes the end id when told to ignore it", () => {
    expect(run({ ignoreEos: true }, [3, 3], 3)).toEqual({ fed: 2 });
  });

  it("bans end ids until minNewBytes ids are there", () => {
    const conditions = new EndConditions(makeRequest({ stop: { minNewBytes: 2, stopIds: [10, 3] } }).stop, 3);
    expect(conditions.bannedIds).toEqual([10, 3]);
    conditions.push(1);
    expect(conditions.bannedIds).toEqual([10, 3]);
    conditions.push(1);
    expect(conditions.bannedIds).toEqual([]);
  });
});
