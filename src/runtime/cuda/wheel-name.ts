/** What the name of a wheel says: `nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl`. */
export interface WheelName {
  readonly project: string;
  readonly version: string;
  readonly platforms: readonly string[];
}

/** Undefined for names of other files. */
export function parseWheelName(file: string): WheelName | undefined {
  const match = /^([^-]+)-([^-]+)(?:-\d[^-]*)?-[^-]+-[^-]+-([^-]+)\.whl$/.exec(file);
  if (match === null) return undefined;
  const [, project, version, platforms] = match as unknown as [string, string, string, string];
  return { project: normalizeProject(project), version, platforms: platforms.split(".") };
}

/** Names of projects are compared so: `Foo.bar_baz` is `foo-bar-baz`. */
export function normalizeProject(name: string): string {
  return name.replace(/[-_.]+/g, "-").toLowerCase();
}

/** Whether a wheel is of this version, for Linux on x86-64; for whatever Python, as only its libraries are of use. */
export function isWanted(file: string, project: string, version: string): boolean {
  const name = parseWheelName(file);
  return (
    name !== undefined &&
    name.project === normalizeProject(project) &&
    name.version === version &&
    name.platforms.some((platform) => /^(manylinux.*|linux)_x86_64$/.test(platform))
  );
}
