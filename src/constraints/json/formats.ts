import { CompileBudget } from "../compile-budget.js";
import { EMPTY, type Ir } from "../ir.js";
import { patternToIr } from "../regex/pattern-to-ir.js";
import { encodeInString } from "./canonical-json.js";

const YEAR = "\\d{4}";
const LEAP_YEAR = "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
const DATE =
  `(?:${YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])` +
  `|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|${LEAP_YEAR}-02-29)`;
const HOURS_MINUTES = "(?:[01]\\d|2[0-3]):[0-5]\\d";
const TIME = `${HOURS_MINUTES}:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+\\-]${HOURS_MINUTES})`;
const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]+";
const LABEL = "[A-Za-z0-9](?:[A-Za-z0-9\\-]*[A-Za-z0-9])?";

/** For the whole string each. */
const PATTERNS: readonly (readonly [string, string])[] = [
  ["date", DATE],
  ["time", TIME],
  ["date-time", `${DATE}T${TIME}`],
  ["uuid", "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"],
  ["ipv4", `${OCTET}(?:\\.${OCTET}){3}`],
  ["email", `${ATOM}(?:\\.${ATOM})*@(?:${LABEL}\\.)+${LABEL}`],
];

/**
 * What may stand in a string of each `format`. Dates are those of the calendar, leap years included; times are RFC 3339
 * without leap seconds and with up to 9 decimals; e-mail addresses are unquoted ASCII.
 */
export const FORMATS: ReadonlyMap<string, Ir> = new Map(
  PATTERNS.map(([name, pattern]) => {
    const options = { encode: encodeInString, around: EMPTY, budget: new CompileBudget(name) };
    return [name, patternToIr(pattern, options)];
  }),
);
