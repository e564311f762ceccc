import { ALL_CODE_POINTS } from "../code-points.js";
import { type Ir, repeat } from "../ir.js";
import { patternToIr } from "../regex/pattern-to-ir.js";
import { encodeInString } from "./canonical-json.js";
import { FORMATS } from "./formats.js";
import { quoted, STRING_CHARACTER } from "./json-text.js";
import { childPath, type SchemaKeywords } from "./schema-keywords.js";

const anyText = repeat(encodeInString(ALL_CODE_POINTS), 0, Infinity);

/** `minLength` and `maxLength` in code points, or `pattern`, or `format`: one of the three. */
export function compileString(keywords: SchemaKeywords): Ir {
  if (keywords.has("pattern")) return quoted(compilePattern(keywords));
  if (keywords.has("format")) return quoted(compileFormat(keywords));
  const min = keywords.readCount("minLength") ?? 0;
  const max = keywords.readCount("maxLength") ?? Infinity;
  if (min > max) keywords.refuse("minLength", "is greater than maxLength");
  return quoted(repeat(STRING_CHARACTER, min, max));
}

/** A pattern may match anywhere in the string, unless it has anchors. */
function compilePattern(keywords: SchemaKeywords): Ir {
  refuseOthers(keywords, "pattern", ["format", "minLength", "maxLength"]);
  const pattern = keywords.readString("pattern")!;
  const { budget, path } = keywords;
  const options = { encode: encodeInString, around: anyText, budget };
  return budget.within(childPath(path, "pattern"), () => patternToIr(pattern, options));
}

function compileFormat(keywords: SchemaKeywords): Ir {
  refuseOthers(keywords, "format", ["minLength", "maxLength"]);
  const format = FORMATS.get(keywords.readString("format")!);
  return format ?? keywords.refuse("format", `must be one of ${[...FORMATS.keys()].join(", ")}`);
}

function refuseOthers(keywords: SchemaKeywords, keyword: string, others: readonly string[]): void {
  for (const other of others) {
    if (keywords.has(other)) keywords.refuse(other, `cannot be combined with ${keyword}`);
  }
}
