/** Rows up to which the graphs with our own matrix-vector products run. */
export const MAX_SMALL_ROWS = 8;

/** Batch sizes for which graphs are recorded: powers of two, up to the first that holds `maxRows`. */
export function bucketsFor(maxRows: number): number[] {
  const buckets = [1];
  while (buckets.at(-1)! < maxRows) buckets.push(2 * buckets.at(-1)!);
  return buckets;
}

/** The smallest bucket for so many rows. */
export function bucketOf(rows: number): number {
  let bucket = 1;
  while (bucket < rows) bucket *= 2;
  return bucket;
}
