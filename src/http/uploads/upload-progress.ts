import { Type } from "typebox";
import type { Clock } from "../../core/clock.js";
import { ProgressRate } from "../progress-rate.js";

/** The data of `progress` events. */
export const UploadProgressEvent = Type.Object(
  {
    object: Type.Literal("upload.progress"),
    received_bytes: Type.Integer({ description: "Bytes of the prompt that have come." }),
    prefilled_bytes: Type.Integer({ description: "Bytes of it that the model has been fed." }),
    total_bytes: Type.Union([Type.Integer(), Type.Null()], { description: "All of them, where that was declared." }),
    bytes_per_second: Type.Number({ description: "Fed since the event before." }),
  },
  { additionalProperties: false, $id: "UploadProgress" },
);

/** How far a prompt is. */
export class UploadProgress {
  #prefilled = 0;
  readonly #rate: ProgressRate;

  /**
   * @param readReceived bytes that have come
   * @param total undefined where it is not known
   */
  constructor(
    private readonly readReceived: () => number,
    private readonly total: number | undefined,
    clock: Clock,
  ) {
    this.#rate = new ProgressRate(clock);
  }

  /** The model has been fed so many more bytes. */
  add(bytes: number): void {
    this.#prefilled += bytes;
  }

  /** All that has come has been fed. */
  finish(): void {
    this.#prefilled = this.readReceived();
  }

  /** What is said of it now. */
  report() {
    return {
      object: "upload.progress" as const,
      received_bytes: this.readReceived(),
      prefilled_bytes: this.#prefilled,
      total_bytes: this.total ?? null,
      bytes_per_second: this.#rate.next(this.#prefilled),
    };
  }
}
