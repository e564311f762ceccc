import { Type } from "typebox";

/** The body of every failure; all four keys are always there. */
export const ErrorAnswer = Type.Object(
  {
    error: Type.Object(
      {
        message: Type.String(),
        type: Type.String(),
        param: Type.Union([Type.String(), Type.Null()], { description: "The field to blame, if one is." }),
        code: Type.String(),
      },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false, $id: "Error" },
);

const DESCRIPTIONS: Readonly<Record<number, string>> = {
  400: "A field is out of bounds, unknown or not supported; `param` names it.",
  401: "No API key was shown, or none that is known.",
  403: "The key, or the web page, may not use this.",
  404: "No such model or session.",
  408: "The time of the request was over (see `x-request-timeout-ms`), or its body stopped coming.",
  409: "The session is in use, or its id is taken; the former may be tried again.",
  413: "The body is larger than the server takes.",
  415: "The body is not JSON.",
  429: "The queues are full, or the key has used up what it may; try again after `Retry-After` seconds.",
  431: "The request line, with the parameters, and the headers are larger than 16 KiB.",
  499: "The request was cancelled.",
  500: "The model failed.",
  503: "The server is shutting down or not ready, or sessions cannot be stored or read; try again after `Retry-After` seconds.",
};

/** Documented failures of a route. */
export function failures(...statuses: number[]) {
  return Object.fromEntries(
    statuses.map((status) => [
      status,
      {
        description: DESCRIPTIONS[status]!,
        content: { "application/json": { schema: Type.Unsafe({ $ref: "Error#" }) } },
      },
    ]),
  );
}

/** What any route that runs the model may answer with. */
export const WORK_FAILURES = [400, 404, 409, 413, 415, 429, 499, 500, 503];
