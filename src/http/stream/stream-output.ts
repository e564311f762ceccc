/** Where what a stream says goes. Both resolve at once when the client has gone. */
export interface StreamOutput {
  bytes(payload: Uint8Array): void;
  /** @param text JSON */
  message(text: string): void;
  /** Whether the client reads more slowly than is written. */
  readonly isSlow: boolean;
  /** Resolves when it does not, or `stop` is aborted. */
  drained(stop: AbortSignal): Promise<void>;
  /** Told when the stream begins and ceases to wait for acknowledgements. */
  awaitAcknowledgement(isAwaited: boolean): void;
}
