import type { FastifyBaseLogger } from "fastify";
import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import { IdList } from "../core/id-list.js";
import type { EngineClient } from "../worker/engine-client-interface.js";
import { engineWithSubmit } from "./engine-with-submit.js";

/** Ids of a prompt and of an output that a log line shows. */
const MAX_SHOWN = 4096;

/** The engine, for one request whose prompts and outputs the log should show. */
export function logged(engine: EngineClient, log: FastifyBaseLogger): EngineClient {
  async function* submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    const { id: sequence, prompt } = request;
    log.info({ sequence, prompt: show(prompt), promptBytes: prompt.length }, "prompt");
    const output = new IdList();
    let outputBytes = 0;
    try {
      for await (const event of engine.submit(request, signal)) {
        if (event.type === "bytes") {
          outputBytes += event.ids.length;
          for (const id of event.ids.subarray(0, MAX_SHOWN - output.length)) output.push(id);
        }
        yield event;
      }
    } finally {
      log.info({ sequence, output: show(output.first(output.length)), outputBytes }, "output");
    }
  }
  return engineWithSubmit(engine, submit);
}

/** As text, where ids that are no bytes are left out. */
function show(ids: Uint16Array): string {
  return Buffer.from(ids.subarray(0, MAX_SHOWN).filter((id) => id < 256)).toString();
}
