import { type BundleSummary, summarizeBundle } from "../../bundle/bundle.js";
import { allOrProblems } from "../../core/all-or-problems.js";
import type { ModelIdentity, ModelInfo } from "../../core/model-info.js";
import { SerialQueue } from "../../core/serial-queue.js";
import { SLOTS_ON_CPU } from "../../core/slots.js";
import { misfit, type SequenceState } from "../../core/state-snapshot.js";
import { reasonOf } from "../../core/stopping.js";
import { MblmError } from "../../errors.js";
import type { EngineClient, EngineState } from "../../worker/engine-client-interface.js";
import { ServedModel, type ServingOptions } from "./served-model.js";
import { warmUp } from "./warm-up.js";

/** Loads a bundle's engine. @throws MblmError `bundle_invalid`, `runtime_unavailable` or `engine_failed` */
export type StartEngine = (bundleDir: string) => Promise<EngineClient>;

/** `unloaded`: a request loads it, unless it was unloaded on purpose: then it is `stopped`. */
export type ModelState = "unloaded" | "stopped" | "loading" | EngineState;

export interface ModelStatus {
  readonly info: ModelInfo;
  readonly state: ModelState;
  /** Why it could not be loaded the last time. */
  readonly reason: string | undefined;
}

/** A use of a model; it stays loaded until `release`. */
export interface ModelLease {
  readonly model: ServedModel;
  readonly release: () => void;
}

/** A request that waits until its model is loaded. */
interface Waiting {
  readonly resolve: (lease: ModelLease) => void;
  readonly reject: (thrown: unknown) => void;
}

interface Entry {
  readonly dir: string;
  summary: BundleSummary;
  served: ServedModel | undefined;
  /** They are given their leases when the model is there: nothing can come in between and unload it. */
  readonly waiting: Waiting[];
  /** For the first time or again. */
  isLoading: boolean;
  isStopped: boolean;
  reason: string | undefined;
  /** Count of uses when it was last used. */
  usedAt: number;
}

/**
 * The models of the server, by name. As many as the memory allows are loaded; of the others, one that is asked for takes
 * the place of those used longest ago.
 */
export class ModelRegistry {
  readonly #entries = new Map<string, Entry>();
  /** Loaded, and those that end. */
  readonly #inMemory = new Set<ServedModel>();
  /** One model is loaded at a time. */
  readonly #changes = new SerialQueue();
  #numUses = 0;
  #isStarted = false;
  #isClosed = false;

  private constructor(
    private readonly start: StartEngine,
    private readonly options: ServingOptions,
    /** Told of failures that nobody waits for. */
    private readonly report: (error: Error) => void,
  ) {}

  /**
   * Reads the manifests; nothing is loaded yet.
   *
   * @throws MblmError with all that is wrong: `bundle_invalid`, or `config_invalid` when two bundles have one name, or one has no
   *   room alone
   */
  static async open(
    dirs: readonly string[],
    start: StartEngine,
    options: ServingOptions,
    report: (error: Error) => void,
  ): Promise<ModelRegistry> {
    const registry = new ModelRegistry(start, options, report);
    const summaries = await allOrProblems(...dirs.map((dir) => () => summarizeBundle(dir)));
    await allOrProblems(...summaries.map((summary, i) => async () => registry.#add(dirs[i]!, summary)));
    return registry;
  }

  /** @throws MblmError `config_invalid` */
  #add(dir: string, summary: BundleSummary): void {
    const other = this.#entries.get(summary.info.id);
    if (other) throw invalid(`model: ${other.dir} and ${dir} are both named ${summary.info.id}`);
    this.#requireRoom(summary);
    this.options.metrics.of(summary.info.id); // at zero from the start
    this.#entries.set(summary.info.id, {
      dir,
      summary,
      served: undefined,
      waiting: [],
      isLoading: false,
      isStopped: false,
      reason: undefined,
      usedAt: 0,
    });
  }

  /** Loads the first model, and of the others as many as there is memory for. @throws what the first failure is */
  async load(): Promise<void> {
    await this.#changes.run(async () => {
      for (const entry of this.#entries.values()) if (this.#isRoomFor(entry.summary)) await this.#load(entry);
    });
    this.#isStarted = true;
  }

  /** The one that is meant when no name is given. */
  get defaultName(): string {
    return this.#entries.keys().next().value!;
  }

  /** All, loaded or not, the default first. */
  list(): ModelStatus[] {
    return [...this.#entries.values()].map((entry) => ({
      info: infoOf(entry),
      state: stateOf(entry),
      reason: entry.reason,
    }));
  }

  /** Those that are in memory and serve. */
  loaded(): ServedModel[] {
    return [...this.#entries.values()].flatMap(({ served }) => served ?? []);
  }

  /** `starting` until `load` is done; then `ready` while all that are loaded are. */
  get state(): "starting" | EngineState {
    if (!this.#isStarted) return "starting";
    return this.loaded().find(({ engine }) => engine.state !== "ready")?.engine.state ?? "ready";
  }

  /** Whether every model would refuse another request: each is loaded, and its engine full. */
  get isFull(): boolean {
    return [...this.#entries.values()].every(({ served }) => served?.engine.isFull === true);
  }

  /** @throws MblmError `model_not_found` unless the name is left out or a model's */
  status(name: string | null | undefined): ModelStatus {
    const entry = this.#find(name);
    return { info: infoOf(entry), state: stateOf(entry), reason: entry.reason };
  }

  /**
   * The model, loaded if it has to be.
   *
   * @param name undefined or null for the default
   * @param stop ends the waiting for it
   * @throws MblmError `model_not_found`; `overloaded` when there is no memory for it; what loading fails with; the reason of `stop`
   */
  async use(name: string | null | undefined, stop?: AbortSignal): Promise<ModelLease> {
    const entry = this.#find(name);
    entry.usedAt = ++this.#numUses;
    return entry.served ? leaseOf(entry.served) : this.#wait(entry, stop);
  }

  /**
   * Loads a model from its folder, in place of what is loaded of it: new requests go to the new bundle, open ones end with the
   * old one.
   *
   * @throws MblmError `model_not_found`, `bundle_invalid`, `overloaded`, `runtime_unavailable`, `engine_failed`; then
   *   everything stays as it was
   */
  async reload(name: string): Promise<void> {
    const entry = this.#find(name);
    await this.#changes.run(async () => {
      const summary = await summarizeBundle(entry.dir);
      if (summary.info.id !== name) {
        throw new MblmError("bundle_invalid", `${entry.dir} is now a bundle of ${summary.info.id}, not of ${name}`);
      }
      const old = entry.served;
      await this.#start(entry, summary);
      if (old) this.#retire(old);
    });
  }

  /** Unloads a model, and keeps it so until `reload`; what is open on it goes on. @throws MblmError `model_not_found` */
  async unload(name: string): Promise<void> {
    const entry = this.#find(name);
    await this.#changes.run(async () => {
      entry.isStopped = true;
      entry.reason = undefined;
      this.#drop(entry);
    });
  }

  /** @throws MblmError `invalid_request` when no model that is served can go on from the state */
  requireFit(state: SequenceState, field: string): void {
    const served: ModelIdentity | undefined = this.#entries.get(state.model.id)?.summary.info;
    const names = [...this.#entries.keys()].join(", ");
    const problem = served ? misfit(state, served) : `is of the model ${state.model.id}; served are ${names}`;
    if (problem !== undefined) throw new MblmError("invalid_request", `${field}: ${problem}`, { field });
  }

  /** Open requests end with `failed`; a model that is being loaded is closed when it is there. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#inMemory].map(({ engine }) => engine.close()));
  }

  #find(name: string | null | undefined): Entry {
    const entry = this.#entries.get(name ?? this.defaultName);
    if (entry !== undefined) return entry;
    const names = [...this.#entries.keys()].join(", ");
    throw new MblmError("model_not_found", `model: ${name} is not served here; ${names} is`, { field: "model" });
  }

  async #wait(entry: Entry, stop?: AbortSignal): Promise<ModelLease> {
    requireServed(entry);
    if (stop?.aborted) throw reasonOf(stop);
    const numWaiting = [...this.#entries.values()].reduce((sum, { waiting }) => sum + waiting.length, 0);
    if (numWaiting >= this.options.config.maxWaiting) {
      throw new MblmError("overloaded", `${numWaiting} requests wait for models to be loaded; try again later.`);
    }
    return new Promise((resolve, reject) => {
      const waiting = { resolve, reject };
      entry.waiting.push(waiting);
      stop?.addEventListener("abort", () => {
        // It may have its lease already.
        const place = entry.waiting.indexOf(waiting);
        if (place >= 0) entry.waiting.splice(place, 1);
        reject(reasonOf(stop));
      });
      // One load is for all that wait for the model by then.
      if (entry.waiting.length === 1) void this.#changes.run(() => this.#loadForWaiting(entry));
    });
  }

  async #loadForWaiting(entry: Entry): Promise<void> {
    if (entry.waiting.length === 0) return; // it was loaded by other means meanwhile
    try {
      await this.#load(entry);
    } catch (thrown) {
      for (const { reject } of entry.waiting.splice(0)) reject(thrown);
    }
  }

  async #load(entry: Entry): Promise<void> {
    if (entry.served) return;
    requireServed(entry); // it may have been unloaded on purpose while others were loaded
    await this.#start(entry, entry.summary);
  }

  /** Puts the model in place, and gives all that wait for it their leases in the same breath. */
  async #start(entry: Entry, summary: BundleSummary): Promise<void> {
    entry.isLoading = true;
    try {
      this.#requireOpen();
      this.#makeRoom(entry, summary);
      const engine = await this.start(entry.dir);
      engine.onRestart?.(() => this.options.metrics.of(summary.info.id).restarted());
      try {
        await warmUp(engine);
        const served = await ServedModel.create(engine, this.#bytesOf(summary), this.options);
        this.#requireOpen();
        this.#inMemory.add(served);
        Object.assign(entry, { served, summary, isStopped: false, reason: undefined });
        for (const { resolve } of entry.waiting.splice(0)) resolve(leaseOf(served));
      } catch (thrown) {
        await engine.close();
        throw thrown;
      }
    } catch (thrown) {
      entry.reason = MblmError.from(thrown).message;
      throw thrown;
    } finally {
      entry.isLoading = false;
    }
  }

  /** Unloads what nobody uses, the longest unused first, until there is room. @throws MblmError `overloaded` */
  #makeRoom(entry: Entry, summary: BundleSummary): void {
    const idle = [...this.#entries.values()].filter((other) => other !== entry && other.served?.isIdle);
    idle.sort((a, b) => b.usedAt - a.usedAt);
    while (!this.#isRoomFor(summary)) {
      const oldest = idle.pop();
      if (oldest === undefined) {
        throw new MblmError("overloaded", `There is no memory for ${summary.info.id} beside the models in use.`);
      }
      this.#drop(oldest);
    }
  }

  #requireRoom(summary: BundleSummary): void {
    const { modelBytes } = this.options.config;
    const bytes = this.#bytesOf(summary);
    if (modelBytes === 0 || bytes <= modelBytes) return;
    const needs = `${summary.info.id} alone needs about ${bytes} (weights, states of the slots, prefix cache)`;
    throw invalid(`model_bytes: ${modelBytes} is too little: ${needs}`);
  }

  #isRoomFor(summary: BundleSummary): boolean {
    const { modelBytes } = this.options.config;
    if (modelBytes === 0) return true;
    const used = [...this.#inMemory].reduce((sum, { bytes }) => sum + bytes, 0);
    return used + this.#bytesOf(summary) <= modelBytes;
  }

  #bytesOf(summary: BundleSummary): number {
    const { slots, prefixCacheBytes } = this.options.config;
    return summary.memoryBytes(slots || SLOTS_ON_CPU) + prefixCacheBytes;
  }

  #drop(entry: Entry): void {
    if (entry.served) this.#retire(entry.served);
    entry.served = undefined;
  }

  #retire(served: ServedModel): void {
    // One that is idle is counted out at once: its place is for the one that is loaded next.
    if (served.isIdle) this.#inMemory.delete(served);
    served
      .retire(this.options.config.swapSeconds)
      .catch(this.report)
      .finally(() => this.#inMemory.delete(served));
  }

  #requireOpen(): void {
    if (this.#isClosed) throw new MblmError("shutting_down", "The server is shutting down.");
  }
}

function leaseOf(model: ServedModel): ModelLease {
  return { model, release: model.lease() };
}

/** @throws MblmError `model_not_found` for a model that was unloaded on purpose */
function requireServed({ isStopped, summary }: Entry): void {
  if (!isStopped) return;
  throw new MblmError("model_not_found", `model: ${summary.info.id} is unloaded`, { field: "model" });
}

function infoOf({ served, summary }: Entry): ModelInfo {
  return served?.engine.info ?? summary.info;
}

function stateOf({ served, isLoading, isStopped }: Entry): ModelState {
  if (served) return served.engine.state;
  if (isLoading) return "loading";
  return isStopped ? "stopped" : "unloaded";
}

function invalid(message: string): MblmError {
  return new MblmError("config_invalid", message);
}
