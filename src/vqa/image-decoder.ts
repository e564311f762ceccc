import type { SharpOptions } from "sharp";
import { Gate } from "../core/gate.js";
import { reasonOf, unlessStopped } from "../core/stopping.js";
import { MblmError } from "../errors.js";
import type { Pixels } from "./colour.js";
import { type ImageFileFormat, isDeepPng, sniffFormat } from "./image-file.js";

type Sharp = typeof import("sharp").default;

export interface DecoderLimits {
  /** Largest width × height; looked up in the header, before anything is decoded. */
  readonly maxPixels: number;
  /** Images that are decoded at a time: what bounds the memory. */
  readonly maxConcurrent: number;
  /** Images that may wait for that. */
  readonly maxWaiting: number;
}

/** An upright image, and what its file says. */
export interface DecodedImage {
  readonly format: ImageFileFormat;
  readonly pixels: Pixels;
}

/** Even an image within the limits may be made to decode slowly, as a JPEG of hundreds of passes. */
const MAX_SECONDS = 20;
/** As the definition asks: no colour management, and nothing damaged is repaired. */
const STRICT: SharpOptions = { ignoreIcc: true, failOn: "warning", animated: false };

/** Decodes JPEG, PNG and WebP files, off the event loop. */
export class ImageDecoder {
  readonly #gate: Gate;

  private constructor(
    private readonly sharp: Sharp,
    private readonly limits: DecoderLimits,
  ) {
    this.#gate = new Gate(limits.maxConcurrent, limits.maxWaiting, "images wait to be decoded");
  }

  /** @throws MblmError `runtime_unavailable` where the decoding library cannot be loaded */
  static async open(limits: DecoderLimits): Promise<ImageDecoder> {
    try {
      // Only servers of models that see images need it.
      return new ImageDecoder((await import("sharp")).default, limits);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new MblmError("runtime_unavailable", `sharp, which decodes images, cannot be loaded: ${reason}`, { cause });
    }
  }

  /**
   * Decodes a file and hands it to `use`; the next one has to wait until that is done, too: it holds the pixels. What decodes when
   * it is stopped cannot be; it keeps its place until it is done.
   *
   * @param stop ends this at once
   * @throws MblmError `invalid_request` for what is no such file, damaged or too large; `overloaded`; the reason of `stop`; what
   *   `use` throws
   */
  async decode<T>(file: Uint8Array, stop: AbortSignal, use: (image: DecodedImage) => Promise<T>): Promise<T> {
    const format = sniffFormat(file);
    if (format === undefined) throw refuse("is no JPEG, PNG or WebP file");
    const decoded = this.#gate.pass(stop, async () => {
      if (stop.aborted) throw reasonOf(stop);
      const pixels = await this.#decodeOrRefuse(file, format);
      if (stop.aborted) throw reasonOf(stop);
      return use({ format, pixels });
    });
    return unlessStopped(decoded, stop);
  }

  async #decodeOrRefuse(file: Uint8Array, format: ImageFileFormat): Promise<Pixels> {
    try {
      return await this.#decode(file, format);
    } catch (cause) {
      if (cause instanceof MblmError) throw cause;
      throw refuse(
        `the ${format} file is damaged, incomplete or of an unsupported kind (${firstLineOf(cause)})`,
        cause,
      );
    }
  }

  async #decode(file: Uint8Array, format: ImageFileFormat): Promise<Pixels> {
    const { maxPixels } = this.limits;
    const { width, height, space, hasAlpha } = await this.sharp(file, {
      ...STRICT,
      limitInputPixels: false,
    }).metadata();
    if (width * height > maxPixels) {
      throw refuse(`has ${width} × ${height} pixels; at most ${maxPixels} are accepted`);
    }
    if (format === "png" && hasAlpha && isDeepPng(file)) {
      throw refuse("is a PNG of 16-bit channels with a transparent colour, which is not supported");
    }
    const target = space === "cmyk" ? "cmyk" : "srgb";
    const { data, info } = await this.sharp(file, { ...STRICT, limitInputPixels: maxPixels })
      .pipelineColourspace(target)
      .autoOrient()
      .toColourspace(target)
      .timeout({ seconds: MAX_SECONDS })
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    const colour = target === "cmyk" ? target : info.channels === 4 ? "rgba" : "rgb";
    return { width: info.width, height: info.height, colour, data };
  }
}

function refuse(problem: string, cause?: unknown): MblmError {
  return new MblmError("invalid_request", `image: ${problem}`, { field: "image", cause });
}

/** The library's first line: the rest repeats it. */
function firstLineOf(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).split("\n", 1)[0]!.trim();
}
