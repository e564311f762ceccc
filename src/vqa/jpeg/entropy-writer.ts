import { BLOCK, type HuffmanTable } from "./tables.js";

/** A symbol's code and its length in bits. */
interface Code {
  readonly bits: number;
  readonly length: number;
}

/** Codes of equal length count up, in the order of the table. */
function toCodes({ counts, symbols }: HuffmanTable): ReadonlyMap<number, Code> {
  const codes = new Map<number, Code>();
  let bits = 0;
  let next = 0;
  for (const [i, count] of counts.entries()) {
    for (let k = 0; k < count; k++) codes.set(symbols[next++]!, { bits: bits++, length: i + 1 });
    bits <<= 1;
  }
  return codes;
}

const END_OF_BLOCK = 0x00;
const SIXTEEN_ZEROS = 0xf0;

/** Writes quantised blocks as the entropy-coded data of a scan. */
export class EntropyWriter {
  readonly bytes: number[] = [];
  #pending = 0;
  #numPending = 0;

  /**
   * @param block in zigzag order
   * @param lastDc the first coefficient of the component's block before this one
   */
  block(block: Int32Array, lastDc: number, dc: CodeTable, ac: CodeTable): void {
    const difference = block[0]! - lastDc;
    this.#symbol(dc, size(difference));
    this.#magnitude(difference);
    let numZeros = 0;
    for (let i = 1; i < BLOCK; i++) {
      const value = block[i]!;
      if (value === 0) {
        numZeros++;
        continue;
      }
      for (; numZeros > 15; numZeros -= 16) this.#symbol(ac, SIXTEEN_ZEROS);
      this.#symbol(ac, (numZeros << 4) | size(value));
      this.#magnitude(value);
      numZeros = 0;
    }
    if (numZeros > 0) this.#symbol(ac, END_OF_BLOCK);
  }

  /** Fills the last byte with ones. */
  flush(): void {
    if (this.#numPending > 0) this.#write(0x7f, 8 - this.#numPending);
  }

  #symbol(table: CodeTable, symbol: number): void {
    const { bits, length } = table.codes.get(symbol)!;
    this.#write(bits, length);
  }

  /** The value's low bits; those of a negative one are of the value below. */
  #magnitude(value: number): void {
    const length = size(value);
    if (length > 0) this.#write(value < 0 ? value - 1 : value, length);
  }

  #write(bits: number, length: number): void {
    for (let i = length - 1; i >= 0; i--) {
      this.#pending = (this.#pending << 1) | ((bits >> i) & 1);
      if (++this.#numPending < 8) continue;
      this.bytes.push(this.#pending);
      if (this.#pending === 0xff) this.bytes.push(0); // so that data never looks like a marker
      this.#pending = 0;
      this.#numPending = 0;
    }
  }
}

/** A Huffman table, ready to code with. */
export class CodeTable {
  readonly codes: ReadonlyMap<number, Code>;

  constructor(readonly table: HuffmanTable) {
    this.codes = toCodes(table);
  }
}

/** Bits of a magnitude. */
function size(value: number): number {
  return 32 - Math.clz32(Math.abs(value));
}
