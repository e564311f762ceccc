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
  };
}

/** Whether requests are served. */
export interface Health {
  readonly isReady: boolean;
  /** `ready`, `draining`, `failed`, … */
  readonly status: string;
}
