import { Type } from "typebox";
import { SESSION_ID } from "../../session/session.js";
import { optional } from "../schemas/nullable.js";
import { requestBody } from "../schemas/shared.js";

export const SessionBody = requestBody(
  "SessionRequest",
  {
    id: optional(Type.String({ pattern: SESSION_ID.source }), "Its name in paths; a random one when left out."),
  },
  [{}],
);

export const SessionAnswer = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal("session"),
    created: Type.Integer({ description: "Unix seconds." }),
    last_used: Type.Integer({ description: "Unix seconds." }),
    bytes: Type.Union([Type.Integer(), Type.Null()], {
      description: "Length of the conversation; null in lists for one that was stored before the server started.",
    }),
  },
  { additionalProperties: false, $id: "Session" },
);

export const SessionList = Type.Object(
  { object: Type.Literal("list"), data: Type.Array(Type.Unsafe({ $ref: "Session#" })) },
  { additionalProperties: false },
);
