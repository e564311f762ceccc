// `npm run bench`: installs, builds and runs scripts/bench.py. Arguments go to it.
import { join } from "node:path";
import { build, installPackages, installPython, requireNode, root, run } from "./setup.mjs";

requireNode();
const python = installPython();
installPackages();
build();
run(python, join(root, "scripts", "bench.py"), ...process.argv.slice(2));
