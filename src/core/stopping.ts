import { MblmError } from "../errors.js";

/** Why something was stopped. */
export function reasonOf({ reason }: AbortSignal): MblmError {
  return reason instanceof MblmError ? reason : new MblmError("aborted", "The request was cancelled.");
}

/**
 * What comes of work that cannot be stopped; when `stop` is aborted before, nobody waits for it any longer.
 *
 * @throws MblmError the reason of `stop`
 */
export function unlessStopped<T>(work: Promise<T>, stop: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(reasonOf(stop));
    stop.addEventListener("abort", abort, { once: true });
    if (stop.aborted) abort();
    work.then(resolve, reject).finally(() => stop.removeEventListener("abort", abort));
  });
}
