/** A served model. */
export interface Model {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly ownedBy: string;
  /** Most bytes of prompt and output together; null if there is no bound. */
  readonly maxModelLen: number | null;
  /** Bytes of context that it was trained with. */
  readonly trainedContext: number;
  /** Bytes and special ids. */
  readonly vocabularySize: number;
  readonly precision: string;
  readonly parameters: number;
  /** Of a model that answers questions about images. */
  readonly vqa: VisualQuestions | undefined;
}

export interface VisualQuestions {
  /** Every answer that the model gives. */
  readonly answers: readonly string[];
  readonly maxQuestionBytes: number;
  /** With the image first, it is read once for all questions. */
  readonly order: "image_question_answer" | "question_image_question_answer";
  /** The image as the model reads it. */
  readonly image: { readonly mode: "pixels" | "jpeg"; readonly width: number; readonly height: number };
}

export interface WireModel {
  readonly id: string;
  readonly created: number;
  readonly owned_by: string;
  readonly max_model_len: number | null;
  readonly trained_context: number;
  readonly vocabulary_size: number;
  readonly precision: string;
  readonly parameters: number;
  readonly vqa?: (Omit<VisualQuestions, "maxQuestionBytes"> & { readonly max_question_bytes: number }) | null;
}

export function toModel(wire: WireModel): Model {
  return {
    id: wire.id,
    created: wire.created,
    ownedBy: wire.owned_by,
    maxModelLen: wire.max_model_len,
    trainedContext: wire.trained_context,
    vocabularySize: wire.vocabulary_size,
    precision: wire.precision,
    parameters: wire.parameters,
    vqa: wire.vqa ? toVisualQuestions(wire.vqa) : undefined,
  };
}

function toVisualQuestions({ max_question_bytes, ...rest }: NonNullable<WireModel["vqa"]>): VisualQuestions {
  return { ...rest, maxQuestionBytes: max_question_bytes };
}

/** Whether requests are served. */
export interface Health {
  readonly isReady: boolean;
  /** `ready`, `draining`, `failed`, … */
  readonly status: string;
}
