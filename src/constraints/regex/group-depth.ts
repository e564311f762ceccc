/**
 * How deep the groups of a regular expression are nested at most, read without recursion: the parser recurses, so it
 * must not see a pattern that is too deep. A pattern with syntax errors gets some number.
 */
export function measureGroupDepth(pattern: string): number {
  let depth = 0;
  let deepest = 0;
  let isInClass = false;
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i];
    if (character === "\\") i++;
    else if (character === "[") isInClass = true;
    else if (character === "]") isInClass = false;
    else if (character === "(" && !isInClass) deepest = Math.max(deepest, ++depth);
    else if (character === ")" && !isInClass) depth--;
  }
  return deepest;
}
