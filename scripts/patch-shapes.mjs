// Shapes of local stages for which the CUDA library has the kernel of a whole patch (native/cuda/local_patch*): the list, and how it is added to.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * `width`: channels of the stage; `ff`: channels of the feed-forward for each of them; `head`: channels of a head.
 *
 * @typedef {{ width: number, ff: number, head: number }} Shape
 */

const FIELDS = ["width", "ff", "head"];
/** Of native/cuda/local_patch.cu. */
const LIMITS = {
  heads: [32, 64, 128],
  widthStep: 128,
  maxWidth: 1024,
  maxFf: 4,
  patch: 32,
  vocabulary: 512,
  layers: 32,
};

/** What is wrong with a shape; undefined when a kernel of it can be compiled. */
function problemOf({ width, ff, head }) {
  const { heads, widthStep, maxWidth, maxFf } = LIMITS;
  if (!(width >= widthStep && width <= maxWidth && width % widthStep === 0)) {
    return `width must be a multiple of ${widthStep}, at most ${maxWidth}; it is ${width}`;
  }
  if (!(Number.isInteger(ff) && ff >= 1 && ff <= maxFf))
    return `ff must be a whole number from 1 to ${maxFf}; it is ${ff}`;
  if (!heads.includes(head) || width % head !== 0) {
    return `head must be ${heads.slice(0, -1).join(", ")} or ${heads.at(-1)} and divide the width (${width}); it is ${head}`;
  }
  return undefined;
}

/** @param {string} text `width=…,ff=…,head=…` @returns {Shape} @throws Error that names the field */
export function parseShape(text) {
  const entries = text.split(",").map((part) => part.split("="));
  for (const [name, value] of entries) {
    if (!FIELDS.includes(name)) throw new Error(`--shape: there is no "${name}" (${FIELDS.join(", ")})`);
    if (!/^\d+$/.test(value ?? "")) throw new Error(`--shape: ${name} must be a whole number`);
  }
  const given = Object.fromEntries(entries.map(([name, value]) => [name, Number(value)]));
  const missing = FIELDS.filter((name) => given[name] === undefined);
  if (missing.length > 0) throw new Error(`--shape: ${missing.join(", ")} missing (width=…,ff=…,head=…)`);
  const problem = problemOf(given);
  if (problem !== undefined) throw new Error(`--shape: ${problem}`);
  return { width: given.width, ff: given.ff, head: given.head };
}

/** The shape of a bundle's local stage. @param {string} dir @returns {Shape} @throws Error that says why no kernel could run it */
export function shapeOfBundle(dir) {
  const refuse = (what) => new Error(`--bundle ${dir}: ${what}`);
  let manifest;
  try {
    manifest = JSON.parse(readFileSync(join(dir, "manifest.json"), "utf8"));
  } catch (error) {
    throw refuse(`its manifest.json cannot be read: ${error.message}`);
  }
  const { architecture } = manifest;
  const block = architecture?.blocks?.at(-1);
  if (block?.block_type !== "transformer") throw refuse("its local stage must be made of transformer blocks");
  if (block.pos_emb_type === "rope") throw refuse("positions of its local stage must not be rotated into the input");
  const width = architecture.hidden_dims.at(-1);
  const { attn_head_dims: head, attn_num_heads: numHeads, ff_multiplier: ff } = block;
  if (numHeads * head !== width) throw refuse(`its heads (${numHeads} of ${head}) must make up the width (${width})`);
  const sizes = [
    ["seq_lens of the local stage", architecture.seq_lens.at(-1), LIMITS.patch],
    ["vocab_size", architecture.vocab_size, LIMITS.vocabulary],
    ["num_layers of the local stage", architecture.num_layers.at(-1), LIMITS.layers],
  ];
  for (const [name, size, limit] of sizes) {
    if (size > limit) throw refuse(`${name} must be at most ${limit}; it is ${size}`);
  }
  const problem = problemOf({ width, ff, head });
  if (problem !== undefined) throw refuse(problem);
  return { width, ff, head };
}

export const nameOf = ({ width, ff, head }) => `${width}x${ff}x${head}`;

/** Both lists, each shape once, in order. @param {readonly Shape[]} shapes @param {readonly Shape[]} more @returns {Shape[]} */
export function united(shapes, more) {
  const byName = new Map([...shapes, ...more].map((shape) => [nameOf(shape), shape]));
  return [...byName.values()].sort((a, b) => a.width - b.width || a.ff - b.ff || a.head - b.head);
}

/** @param {string} file @returns {Shape[]} */
export const readShapes = (file) => JSON.parse(readFileSync(file, "utf8"));

/** @param {string} file @param {readonly Shape[]} shapes */
export function writeShapes(file, shapes) {
  const line = ({ width, ff, head }) => `  { "width": ${width}, "ff": ${ff}, "head": ${head} }`;
  writeFileSync(file, `[\n${shapes.map(line).join(",\n")}\n]\n`);
}

/** What native/cuda/local_patch.cu includes. @param {readonly Shape[]} shapes */
export function compiledHeader(shapes) {
  return shapes.map(({ width, ff, head }) => `SHAPE(${width}, ${ff}, ${head})\n`).join("");
}
