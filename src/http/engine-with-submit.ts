import type { EngineClient } from "../worker/engine-client-interface.js";

/** The same engine with another way to submit. */
export function engineWithSubmit(engine: EngineClient, submit: EngineClient["submit"]): EngineClient {
  return {
    submit,
    get info() {
      return engine.info;
    },
    get runtime() {
      return engine.runtime;
    },
    get state() {
      return engine.state;
    },
    stats: () => engine.stats(),
    onFailure: (callback) => engine.onFailure(callback),
    close: () => engine.close(),
  };
}
