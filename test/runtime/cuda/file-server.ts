import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A web server on this machine whose pages are functions; it remembers what it was asked. */
export class FileServer {
  readonly pages = new Map<string, Handler>();
  readonly requests: IncomingMessage[] = [];

  private constructor(
    private readonly server: Server,
    readonly url: string,
  ) {}

  static async start(): Promise<FileServer> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const files = new FileServer(server, `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      files.requests.push(request);
      const page = files.pages.get(request.url!);
      if (page) page(request, response);
      else response.writeHead(404).end();
    });
    return files;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Serves bytes, whole or from where the client asks. */
export function serveBytes(data: Buffer): Handler {
  return (request, response) => {
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    if (start >= data.length && start > 0) {
      response.writeHead(416).end();
      return;
    }
    response.writeHead(start > 0 ? 206 : 200, { "content-length": data.length - start });
    response.end(data.subarray(start));
  };
}

/** Sends so many bytes, and breaks the connection when `when` is over. */
export function breakAfter(data: Buffer, length: number, when: Promise<void>): Handler {
  return (_, response) => {
    response.writeHead(200, { "content-length": data.length });
    response.write(data.subarray(0, length), () => void when.then(() => response.socket?.destroy()));
  };
}

export function serveText(type: string, text: string): Handler {
  return (_, response) => {
    response.writeHead(200, { "content-type": type }).end(text);
  };
}
