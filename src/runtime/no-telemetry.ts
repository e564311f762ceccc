import { loadNativeLibrary } from "./native-library.js";

const VARIABLE = "ORT_DISABLE_TELEMETRY";
const KEEP = 0;

/**
 * Keeps ONNX Runtime from telling Microsoft how it is used, and from writing a log of that to the folder for temporary
 * files, as its builds for Linux and macOS do by default. To be called before the first use of its library, from any thread.
 * A value that the variable has already stays.
 */
export function disableTelemetry(): void {
  if (process.platform === "win32") return;
  // Of the process, where native code looks: what JavaScript has in a worker thread is a copy.
  const setenv = loadNativeLibrary(null).func("setenv", "int", ["const char *", "const char *", "int"]);
  setenv(VARIABLE, "1", KEEP);
}
