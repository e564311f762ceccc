import { type Static, Type } from "typebox";
import type { PromptProgress } from "../../feeding/prompt-progress.js";

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

/** What is said of a prompt now. `total`: bytes of all of it, where that is known. */
export function describeProgress(
  progress: PromptProgress,
  total: number | undefined,
): Static<typeof UploadProgressEvent> {
  const { received, prefilled, perSecond } = progress.report();
  return {
    object: "upload.progress",
    received_bytes: received,
    prefilled_bytes: prefilled,
    total_bytes: total ?? null,
    bytes_per_second: perSecond,
  };
}
