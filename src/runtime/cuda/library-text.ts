import { createReadStream } from "node:fs";

/** Whether a file has the text between two zero bytes, as compilers lay constants down. */
export async function hasText(path: string, text: string): Promise<boolean> {
  const wanted = Buffer.from(`\0${text}\0`, "latin1");
  let end: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    const data = Buffer.concat([end, chunk as Buffer]);
    if (data.includes(wanted)) return true;
    end = data.subarray(Math.max(0, data.length - wanted.length + 1));
  }
  return false;
}
