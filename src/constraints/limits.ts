/*
 * Bounds of what a constraint may cost, since clients send them. Measured on one core of a server (Xeon), each in its
 * first second: the dearest refusals found take 50 to 80 ms, the dearest constraints that fit about 100 ms and 5 MB; a
 * string of 200 characters takes 5 ms, 30 properties 4 ms, any JSON object 5 ms, or 50 ms as the first of a process.
 */

/** Length of a regular expression, UTF-16 code units. */
export const MAX_PATTERN_LENGTH = 10_000;
/** Groups inside groups of a regular expression: the parser and the compiler recurse into them. */
export const MAX_GROUP_DEPTH = 100;
/** Strings to choose from. */
export const MAX_CHOICES = 10_000;
/** Levels of a JSON schema as JSON text; a schema inside `properties` is two levels below its owner. */
export const MAX_SCHEMA_DEPTH = 64;
/** Schemas inside schemas, a followed `$ref` being one step. */
export const MAX_SCHEMA_NESTING = 64;
/** Values, plus UTF-16 code units of all strings and names, of a JSON schema. */
export const MAX_SCHEMA_SIZE = 100_000;
/** Schemas of `prefixItems`: the compiler recurses from each into the next. */
export const MAX_PREFIX_ITEMS = 100;
/** Objects and arrays inside one another where a schema, or `json_object`, leaves the value open. */
export const MAX_JSON_DEPTH = 5;
/** States of the non-deterministic automaton, repetitions written out. */
export const MAX_NFA_NODES = 200_000;
/** States of the automaton before minimisation; a Uint16 and NO_STATE bound it too. */
export const MAX_DFA_STATES = 60_000;
/**
 * Elementary steps of one compilation, such as a node visited; see `CompileBudget`. Every transition filled in, of 4
 * bytes, is one, so this bounds memory as well.
 */
export const MAX_WORK = 2_000_000;
/** Bytes of an automaton's tables: 2 for each transition, 5 for each state, a class for each byte. See `ByteAutomaton`. */
export const MAX_TABLE_BYTES = 2 * MAX_WORK + 5 * MAX_DFA_STATES + 256;
