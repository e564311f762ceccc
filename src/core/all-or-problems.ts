import { MblmError } from "../errors.js";

/** Results of several pieces of work, each by its place. */
type Works<T extends readonly unknown[]> = { readonly [K in keyof T]: () => Promise<T[K]> };

/**
 * Does pieces of work that do not need each other, so that whoever has to mend something hears of all that is wrong at once.
 *
 * @throws MblmError with a line for each that failed, in their order, and the code of the first; what is no MblmError is thrown
 *   as it is
 */
export async function allOrProblems<T extends readonly unknown[]>(...works: Works<T>): Promise<T> {
  const ends = await Promise.allSettled(works.map((work) => work()));
  const problems = ends.flatMap((end) => (end.status === "rejected" ? [end.reason as unknown] : []));
  const [first] = problems;
  const stranger = problems.find((problem) => !(problem instanceof MblmError));
  if (stranger !== undefined) throw stranger;
  if (first === undefined) return ends.map((end) => (end as PromiseFulfilledResult<unknown>).value) as unknown as T;
  if (problems.length === 1) throw first;
  const lines = (problems as MblmError[]).map(({ message }) => message);
  throw new MblmError((first as MblmError).code, lines.join("\n"), { cause: first });
}
