import { describe, expect, it } from "vitest";
import { allOrProblems } from "../../src/core/all-or-problems.js";
import { MblmError } from "../../src/errors.js";

const fail = (code: "config_invalid" | "bundle_invalid", message: string) => async (): Promise<never> => {
  throw new MblmError(code, message);
};

describe("allOrProblems", () => {
  it("gives all results in their places", async () => {
    const results = await allOrProblems(
      async () => 1,
      async () => "two",
    );
    expect(results).toEqual([1, "two"]);
    expect(await allOrProblems()).toEqual([]);
  });

  it("throws every problem, in order, with the code of the first", async () => {
    const failing = allOrProblems(fail("bundle_invalid", "a"), async () => 1, fail("config_invalid", "b\nc"));
    await expect(failing).rejects.toMatchObject({ code: "bundle_invalid", message: "a\nb\nc" });
  });

  it("throws a single problem, and what is none, as they are", async () => {
    const [problem, bug] = [new MblmError("config_invalid", "a", { field: "f" }), new TypeError("b")];
    await expect(allOrProblems(() => Promise.reject(problem))).rejects.toBe(problem);
    await expect(
      allOrProblems(
        () => Promise.reject(problem),
        () => Promise.reject(bug),
      ),
    ).rejects.toBe(bug);
  });
});
