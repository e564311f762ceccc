/** Lines without their ends; empty ones are passed over. A last line needs no end. */
export async function* textLines(text: AsyncIterable<string>): AsyncGenerator<string, void> {
  let parts: string[] = []; // of a line that is not whole: joined once, however many pieces it comes in
  for await (const piece of text) {
    const ends = piece.split("\n");
    const rest = ends.pop()!;
    for (const end of ends) {
      const line = [...parts, end].join("").trim();
      parts = [];
      if (line !== "") yield line;
    }
    parts.push(rest);
  }
  const last = parts.join("").trim();
  if (last !== "") yield last;
}
