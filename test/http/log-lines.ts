import type { TestApp } from "./test-app.js";

/** What the application logs from now on, instead of writing it. */
export function logLines(app: TestApp): string[] {
  const lines: string[] = [];
  const { log } = app.server;
  const stream = Object.getOwnPropertySymbols(log).find(({ description }) => description === "pino.stream");
  if (stream === undefined) throw new Error("the logger has no stream");
  // Loggers of requests inherit from this one.
  Object.assign(log, { [stream]: { write: (line: string) => lines.push(line) } });
  return lines;
}
