import type { EngineStats } from "../core/engine-stats.js";
import type { GenerationEvent } from "../core/generation-event.js";
import type { GenerationRequest } from "../core/generation-request.js";
import type { ModelInfo } from "../core/model-info.js";
import { MblmError } from "../errors.js";
import type { EngineClient, EngineState, RuntimeInfo } from "./engine-client-interface.js";

const FIRST_DELAY_MILLISECONDS = 100;
const MAX_DELAY_MILLISECONDS = 30_000;
/** An engine that has run so long has not failed because of how it was started. */
const HEALTHY_MILLISECONDS = 60_000;

/**
 * An engine that is started again when it breaks down: open requests end with `failed`, new ones are refused with
 * `engine_restarting` until it is back. (What kills the whole process is for whoever runs that.)
 */
export class SupervisedEngine implements EngineClient {
  readonly #failureCallbacks: ((error: MblmError) => void)[] = [];
  readonly #restartCallbacks: ((seconds: number) => void)[] = [];
  #engine: EngineClient;
  #isRestarting = false;
  #closing: Promise<void> | undefined;
  #delay = FIRST_DELAY_MILLISECONDS;
  #startedAt = Date.now();
  #timer: NodeJS.Timeout | undefined;

  private constructor(
    private readonly startEngine: () => Promise<EngineClient>,
    first: EngineClient,
  ) {
    this.#engine = first;
    this.#watch(first);
  }

  /** @throws what `startEngine` throws the first time; later it is tried again */
  static async start(startEngine: () => Promise<EngineClient>): Promise<SupervisedEngine> {
    return new SupervisedEngine(startEngine, await startEngine());
  }

  get info(): ModelInfo {
    return this.#engine.info;
  }

  get runtime(): RuntimeInfo | undefined {
    return this.#engine.runtime;
  }

  get numSlots(): number | undefined {
    return this.#engine.numSlots;
  }

  get state(): EngineState {
    if (this.#closing !== undefined) return "closed";
    return this.#isRestarting ? "restarting" : this.#engine.state;
  }

  get isFull(): boolean | undefined {
    return this.#engine.isFull;
  }

  async *submit(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent, void, void> {
    this.#requireHere();
    yield* this.#engine.submit(request, signal);
  }

  async stats(): Promise<EngineStats> {
    this.#requireHere();
    return this.#engine.stats();
  }

  /** Calls back every time that the engine breaks down or cannot be started. */
  onFailure(callback: (error: MblmError) => void): void {
    this.#failureCallbacks.push(callback);
  }

  /** Calls back every time that it is back, with the seconds that it was not there. */
  onRestart(callback: (seconds: number) => void): void {
    this.#restartCallbacks.push(callback);
  }

  close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#closing ??= this.#isRestarting ? Promise.resolve() : this.#engine.close();
    return this.#closing;
  }

  #watch(engine: EngineClient): void {
    engine.onFailure((error) => {
      if (this.#closing !== undefined) return;
      if (Date.now() - this.#startedAt > HEALTHY_MILLISECONDS) this.#delay = FIRST_DELAY_MILLISECONDS;
      this.#isRestarting = true;
      this.#report(error);
      this.#schedule(Date.now());
      // What is left of it: a thread that has only failed still has the model's memory.
      void engine.close().catch(() => {});
    });
  }

  #schedule(goneSince: number): void {
    this.#timer = setTimeout(() => void this.#restart(goneSince), this.#delay);
    this.#delay = Math.min(2 * this.#delay, MAX_DELAY_MILLISECONDS);
  }

  async #restart(goneSince: number): Promise<void> {
    try {
      const engine = await this.startEngine();
      if (this.#closing !== undefined) {
        await engine.close();
        return;
      }
      this.#engine = engine;
      this.#startedAt = Date.now();
      this.#isRestarting = false;
      this.#watch(engine);
      for (const callback of this.#restartCallbacks) callback((Date.now() - goneSince) / 1000);
    } catch (thrown) {
      if (this.#closing !== undefined) return;
      this.#report(MblmError.from(thrown));
      this.#schedule(goneSince);
    }
  }

  #report(error: MblmError): void {
    for (const callback of this.#failureCallbacks) callback(error);
  }

  #requireHere(): void {
    if (this.#closing !== undefined) throw new MblmError("shutting_down", "The engine is shutting down.");
    if (!this.#isRestarting) return;
    throw new MblmError("engine_restarting", "The engine broke down and is being started again; try again soon.");
  }
}
