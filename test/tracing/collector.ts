import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

interface Value {
  stringValue?: string;
  intValue?: number | string;
  doubleValue?: number;
  boolValue?: boolean;
  arrayValue?: { values: Value[] };
}

type Attributes = Readonly<Record<string, unknown>>;
type KeyValues = readonly { key: string; value: Value }[];

/** A span as it came in, with plain attributes. */
export interface CollectedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  /** Unix nanoseconds. */
  readonly start: bigint;
  readonly end: bigint;
  readonly attributes: Attributes;
  readonly links: readonly { traceId: string; spanId: string }[];
  /** 0 unset, 1 ok, 2 error. */
  readonly status: number;
}

export const ERROR = 2;

/** A collector of traces: OTLP over HTTP in JSON, written from the protocol's description. */
export class Collector {
  readonly spans: CollectedSpan[] = [];
  readonly resources: Attributes[] = [];
  /** Bodies as they came. */
  readonly bodies: string[] = [];
  /** What is answered. */
  status = 200;
  readonly #server = createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    if (request.method !== "POST" || request.url !== "/v1/traces") {
      response.writeHead(404).end();
      return;
    }
    this.#take(body);
    response.writeHead(this.status, { "content-type": "application/json" }).end("{}");
  });

  static async start(): Promise<Collector> {
    const collector = new Collector();
    await new Promise<void>((resolve) => collector.#server.listen(0, "127.0.0.1", resolve));
    return collector;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Every span's name below the one that is given, as a tree in order of time. */
  tree({ spanId, name }: CollectedSpan): unknown[] {
    const children = this.spans.filter(({ parentSpanId }) => parentSpanId === spanId);
    children.sort((a, b) => Number(a.start - b.start));
    return [name, ...children.map((child) => this.tree(child))];
  }

  named(name: string): CollectedSpan[] {
    return this.spans.filter((span) => span.name === name);
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #take(body: string): void {
    this.bodies.push(body);
    for (const { resource, scopeSpans } of JSON.parse(body).resourceSpans) {
      this.resources.push(plain(resource.attributes));
      for (const { spans } of scopeSpans) {
        for (const { startTimeUnixNano, endTimeUnixNano, attributes, status, links = [], ...span } of spans) {
          const times = { start: BigInt(startTimeUnixNano), end: BigInt(endTimeUnixNano) };
          this.spans.push({ ...span, ...times, links, attributes: plain(attributes), status: status.code });
        }
      }
    }
  }
}

function plain(attributes: KeyValues): Attributes {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, unwrap(value)]));
}

function unwrap(value: Value): unknown {
  if (value.arrayValue) return value.arrayValue.values.map(unwrap);
  if (value.intValue !== undefined) return Number(value.intValue);
  return value.stringValue ?? value.doubleValue ?? value.boolValue;
}
