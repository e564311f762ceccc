/** What vLLM calls the same thing, where there is the same thing; a token is a byte. */
const NAMES: readonly (readonly [own: string, vllm: string])[] = [
  ["mblm_requests_running", "vllm:num_requests_running"],
  ["mblm_requests_waiting", "vllm:num_requests_waiting"],
  ["mblm_slot_usage_ratio", "vllm:kv_cache_usage_perc"],
  ["mblm_slot_usage_ratio", "vllm:gpu_cache_usage_perc"],
  ["mblm_prompt_bytes_total", "vllm:prompt_tokens_total"],
  ["mblm_generated_bytes_total", "vllm:generation_tokens_total"],
  ["mblm_requests_total", "vllm:request_success_total"],
  ["mblm_prefix_cache_queried_bytes_total", "vllm:prefix_cache_queries_total"],
  ["mblm_prefix_cache_hit_bytes_total", "vllm:prefix_cache_hits_total"],
  ["mblm_time_to_first_byte_seconds", "vllm:time_to_first_token_seconds"],
  ["mblm_time_per_byte_seconds", "vllm:request_time_per_output_token_seconds"],
  ["mblm_chunk_gap_seconds", "vllm:inter_token_latency_seconds"],
  ["mblm_request_duration_seconds", "vllm:e2e_request_latency_seconds"],
  ["mblm_queue_seconds", "vllm:request_queue_time_seconds"],
  ["mblm_prefill_seconds", "vllm:request_prefill_time_seconds"],
  ["mblm_decode_seconds", "vllm:request_decode_time_seconds"],
];

/** The exposition, and after it the same numbers under vLLM's names. */
export function withVllmNames(exposition: string): string {
  const blocks = new Map(
    exposition
      .split(/^(?=# HELP )/m)
      .map((block) => [/^# HELP (\S+)/.exec(block)?.[1] ?? "", block.trimEnd()] as const),
  );
  const copies = NAMES.flatMap(([own, vllm]) => {
    const block = blocks.get(own);
    return block === undefined ? [] : [`${rename(block, own, vllm)}\n`];
  });
  return exposition + copies.join("\n");
}

function rename(block: string, own: string, vllm: string): string {
  return block
    .replace(new RegExp(`^(# (?:HELP|TYPE) )?${own}`, "gm"), (_, comment = "") => `${comment}${vllm}`)
    .replace(/([{,])model="/g, '$1model_name="')
    .replace(/([{,])finish_reason="/g, '$1finished_reason="');
}
