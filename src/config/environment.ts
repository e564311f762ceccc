/** Variables by name, as a process has them. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** This process's variables. */
export const environment: Environment = process.env;

/** The folders that a variable lists, as PATH does. */
export function folders(list: string | undefined): string[] {
  return (list ?? "").split(":").filter((folder) => folder !== "");
}
