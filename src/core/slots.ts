/** Sequences that run at the same time where nobody says how many (`slots` 0): on a CPU. */
export const SLOTS_ON_CPU = 16;

/** On a device as many as its memory allows, at most so many: the largest batch that graphs are made for. */
export const MOST_SLOTS_ON_DEVICE = 256;
