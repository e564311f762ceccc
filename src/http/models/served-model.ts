import type { Config } from "../../config/schema.js";
import type { Clock } from "../../core/clock.js";
import { Gate } from "../../core/gate.js";
import { SLOTS_ON_CPU } from "../../core/slots.js";
import type { ServerMetrics } from "../../metrics/server-metrics.js";
import type { EngineClient } from "../../worker/engine-client-interface.js";
import { ChatTemplate } from "../chat/chat-template.js";
import { Vision } from "../vqa/vision.js";

/** What every model of the server is served with. */
export interface ServingOptions {
  readonly config: Config;
  readonly metrics: ServerMetrics;
  readonly clock: Clock;
  readonly version: string;
}

/** Streams that wait in the engine, so that no slot is ever empty for long. */
const STREAMS_AHEAD = 4;

/** A loaded model with what its requests need. Who uses it holds a lease, so that it is not unloaded meanwhile. */
export class ServedModel {
  readonly chatTemplate: ChatTemplate;
  /** What streams ask of the engine passes through here, so that not all their states are there at a time. */
  readonly streamGate: Gate;
  /** Names what determines the bytes of a seeded request: server version, model and precision. */
  readonly fingerprint: string;
  #numLeases = 0;
  #onIdle: (() => void) | undefined;

  private constructor(
    readonly engine: EngineClient,
    /** Where the model answers questions about images. */
    readonly vision: Vision | undefined,
    /** Memory that it takes. */
    readonly bytes: number,
    { config, version }: ServingOptions,
  ) {
    const { info, numSlots = SLOTS_ON_CPU } = engine;
    this.chatTemplate = new ChatTemplate(info.chat);
    this.streamGate = new Gate(numSlots + STREAMS_AHEAD, config.maxWaiting);
    this.fingerprint = `mblm-server-${version}-${info.id}-${info.precision}`;
  }

  /** @throws MblmError `bundle_invalid`, `config_invalid` or `runtime_unavailable` */
  static async create(engine: EngineClient, bytes: number, options: ServingOptions): Promise<ServedModel> {
    const { config, metrics, clock } = options;
    return new ServedModel(
      engine,
      await Vision.open(engine, config, metrics.of(engine.info.id), clock),
      bytes,
      options,
    );
  }

  get isIdle(): boolean {
    return this.#numLeases === 0;
  }

  /** Returns what ends the lease; more calls of that do nothing. */
  lease(): () => void {
    this.#numLeases++;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      if (--this.#numLeases === 0) this.#onIdle?.();
    };
  }

  /** Unloads when the last lease has ended, or after `seconds`: what is open then ends with `failed`. */
  async retire(seconds: number): Promise<void> {
    if (!this.isIdle) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
        timer = setTimeout(resolve, seconds * 1000);
      });
      clearTimeout(timer);
    }
    await this.engine.close();
  }
}
