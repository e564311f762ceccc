/** The indices of a list of keys, ordered by key. */
export interface Grouping {
  /** The indices with key k are order[starts[k]] … order[starts[k + 1] - 1], ascending. numKeys + 1 */
  readonly starts: Int32Array;
  readonly order: Int32Array;
}

/** Counting sort. Keys are 0 … numKeys − 1. */
export function groupByKey(keys: Int32Array, numKeys: number): Grouping {
  const starts = new Int32Array(numKeys + 1);
  for (let i = 0; i < keys.length; i++) starts[keys[i]! + 1]!++;
  for (let key = 0; key < numKeys; key++) starts[key + 1]! += starts[key]!;
  const order = new Int32Array(keys.length);
  const place = starts.slice();
  for (let i = 0; i < keys.length; i++) order[place[keys[i]!]!++] = i;
  return { starts, order };
}
