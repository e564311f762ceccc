// `npm run bench`: installs, builds and runs scripts/bench.py. Arguments go to it.
import { join } from "node:path";
import { installAll, root, run } from "./setup.mjs";

const python = await installAll();
run(python, join(root, "scripts", "bench.py"), ...process.argv.slice(2));
