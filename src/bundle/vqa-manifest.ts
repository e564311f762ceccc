import { type Static, Type } from "typebox";
import type { ImageFormat, VqaFormat } from "../core/vqa-format.js";

const Id = Type.Integer({ minimum: 0 });
const Extent = Type.Integer({ minimum: 1, maximum: 4096 });
const imageFields = {
  width: Extent,
  height: Extent,
  crop: Type.Number({ minimum: 0, exclusiveMaximum: 0.5 }),
};
const PixelImage = Type.Object(
  {
    mode: Type.Literal("pixels"),
    ...imageFields,
    levels: Type.Union([Type.Integer({ minimum: 2, maximum: 256 }), Type.Null()]),
  },
  { additionalProperties: false },
);
const JpegImage = Type.Object(
  {
    mode: Type.Literal("jpeg"),
    ...imageFields,
    quality: Type.Integer({ minimum: 1, maximum: 95 }),
    restart_blocks: Type.Integer({ minimum: 0, maximum: 65_535 }),
    block_bytes: Type.Optional(Type.Integer({ minimum: 0, maximum: 64 })),
  },
  { additionalProperties: false },
);

/** The manifest's `vqa`: the byte layout that a model was trained on (`scripts/multiscale/vqa/layout.py`). */
export const VqaManifest = Type.Object(
  {
    order: Type.Union([Type.Literal("image_question_answer"), Type.Literal("question_image_question_answer")]),
    align: Type.Integer({ minimum: 1 }),
    max_question_bytes: Type.Integer({ minimum: 1 }),
    image: Type.Union([PixelImage, JpegImage]),
    special_ids: Type.Object({ pad: Id, eom: Id, som_text: Id, som_image: Id }, { additionalProperties: false }),
    answers: Type.Record(Type.String({ minLength: 1 }), Id, { minProperties: 1 }),
  },
  { additionalProperties: false },
);

export type VqaManifest = Static<typeof VqaManifest>;

/** The first thing that is wrong beside what the schema says; undefined when all is well. */
export function vqaProblem({ special_ids, answers, image }: VqaManifest, vocabularySize: number): string | undefined {
  const blockProblem = image.mode === "jpeg" ? jpegProblem(image) : undefined;
  if (blockProblem !== undefined) return blockProblem;
  const named = [...Object.entries(special_ids), ...Object.entries(answers)];
  const outside = named.find(([, id]) => id >= vocabularySize);
  if (outside !== undefined) return `the id of ${outside[0]}, ${outside[1]}, is outside the vocabulary`;
  for (const [name, ids] of Object.entries({ special_ids, answers })) {
    if (new Set(Object.values(ids)).size < Object.keys(ids).length) return `two of ${name} have the same id`;
  }
  return undefined;
}

const MIN_BLOCK_BYTES = 3;

function jpegProblem({ block_bytes = 0, restart_blocks }: Static<typeof JpegImage>): string | undefined {
  if (block_bytes === 0) return undefined;
  if (block_bytes < MIN_BLOCK_BYTES) {
    return `block_bytes is ${block_bytes}, it must be 0 or at least ${MIN_BLOCK_BYTES}, a marker and a byte`;
  }
  return restart_blocks === 1 ? undefined : `block_bytes needs restart_blocks 1, which is ${restart_blocks}`;
}

export function toVqaFormat(manifest: VqaManifest): VqaFormat {
  const { special_ids, answers } = manifest;
  return {
    order: manifest.order,
    align: manifest.align,
    maxQuestionBytes: manifest.max_question_bytes,
    image: toImageFormat(manifest.image),
    segmentIds: {
      pad: special_ids.pad,
      end: special_ids.eom,
      startOfText: special_ids.som_text,
      startOfImage: special_ids.som_image,
    },
    answers: Object.entries(answers).map(([text, id]) => ({ text, id })),
  };
}

function toImageFormat(image: VqaManifest["image"]): ImageFormat {
  const { width, height, crop } = image;
  const encoding: ImageFormat["encoding"] =
    image.mode === "pixels"
      ? { mode: image.mode, levels: image.levels ?? undefined }
      : {
          mode: image.mode,
          quality: image.quality,
          restartBlocks: image.restart_blocks,
          blockBytes: image.block_bytes ?? 0,
        };
  return { width, height, crop, encoding };
}
