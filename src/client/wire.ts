/** Answers as they are on the wire, as far as the client reads them. */
export interface WireCompletion {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint?: string | null;
  readonly choices: readonly WireChoice[];
  readonly usage?: WireUsage | null;
}

export interface WireChoice {
  readonly index: number;
  readonly text: string;
  readonly finish_reason: string | null;
  readonly stop_reason?: string | number | readonly number[] | null;
  readonly token_ids?: readonly number[] | null;
  readonly prompt_token_ids?: readonly number[] | null;
  readonly logprobs?: {
    readonly tokens: readonly string[];
    readonly token_logprobs: readonly (number | null)[];
    readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
    readonly text_offset: readonly number[];
  } | null;
  readonly prompt_logprobs?:
    | readonly (Readonly<Record<string, { logprob: number; rank: number | null; decoded_token: string }>> | null)[]
    | null;
}

export interface WireUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number | null } | null;
}

/** A report on what is being fed, of a stream or an upload. */
export interface WireProgress {
  readonly received_bytes?: number;
  readonly prefilled_bytes?: number;
  readonly bytes_per_second?: number;
  readonly total_bytes?: number | null;
}
