// Carries out the Dockerfile's steps without a container engine, in a folder per stage, and runs what comes out as the image
// would be run: as its user, on files that nobody may write. Base images are not fetched; this machine's Node stands for them.
import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { DockerfileParser } from "dockerfile-ast";
import { root } from "./setup.mjs";

const PORT = "18765";
const START_SECONDS = 60;
const MIB = 2 ** 20;

/** Everything that was made; removed at the end. */
const scratch = fs.mkdtempSync(join(tmpdir(), "image-"));
fs.chmodSync(scratch, 0o755);

/** One stage while it is built: its root folder and what the instructions have set. */
class Stage {
  workdir = "/";
  user = "0:0";
  environment = {};
  entrypoint = [];
  command = [];
  healthcheck = [];
  stopSignal = "SIGTERM";

  constructor(number) {
    this.root = join(scratch, String(number));
    fs.mkdirSync(this.root);
  }

  /** The folder or file of this machine that a path of the stage is. */
  locate(path) {
    return join(this.root, path.startsWith("/") ? path : join(this.workdir, path));
  }

  get env() {
    const { PATH, HOME, npm_config_registry } = process.env;
    return { PATH, HOME, ...(npm_config_registry ? { npm_config_registry } : {}), ...this.environment };
  }
}

const strings = (instruction) => instruction.getJSONStrings().map((one) => one.getJSONValue());
const words = (instruction) => instruction.getArguments().map((one) => one.getValue());

/** What each instruction does; one that is not here stops the check. */
const INSTRUCTIONS = {
  ARG() {},
  LABEL() {},
  EXPOSE() {},
  WORKDIR(stage, instruction) {
    stage.workdir = words(instruction)[0];
    fs.mkdirSync(stage.locate("."), { recursive: true });
  },
  ENV(stage, instruction) {
    for (const property of instruction.getProperties()) stage.environment[property.getName()] = property.getValue();
  },
  USER(stage, instruction) {
    stage.user = words(instruction)[0];
  },
  STOPSIGNAL(stage, instruction) {
    stage.stopSignal = words(instruction)[0];
  },
  ENTRYPOINT(stage, instruction) {
    stage.entrypoint = strings(instruction);
  },
  CMD(stage, instruction) {
    stage.command = strings(instruction);
  },
  HEALTHCHECK(stage, instruction) {
    stage.healthcheck = JSON.parse(instruction.getArgumentsContent().replace(/^.*?CMD\s*/s, ""));
  },
  COPY(stage, instruction, stages) {
    const from = instruction.getFromFlag()?.getValue();
    const paths = words(instruction).filter((word) => !word.startsWith("--"));
    const target = paths.pop();
    for (const path of paths) {
      const source = from === undefined ? inContext(path) : stages.get(from).locate(path);
      const isInto = target.endsWith("/") || target === ".";
      fs.cpSync(source, stage.locate(isInto ? join(target, basename(path)) : target), { recursive: true });
    }
  },
  RUN(stage, instruction) {
    const command = instruction.getArgumentsContent().replace(/\\\n/g, " ");
    const { status } = spawnSync("/bin/sh", ["-c", command], {
      cwd: stage.locate("."),
      env: stage.env,
      stdio: "inherit",
    });
    if (status !== 0) throw new Error(`RUN ended with ${status}: ${command}`);
  },
};

/** A file of the build context, where .dockerignore lets it in: there the last pattern that fits counts. */
function inContext(path) {
  const patterns = fs.readFileSync(join(root, ".dockerignore"), "utf8").split("\n");
  let isIn = true;
  for (const pattern of patterns.filter((line) => line !== "" && !line.startsWith("#"))) {
    if (pattern === "*" || pattern === path) isIn = false;
    if (pattern === `!${path}`) isIn = true;
  }
  if (!isIn || !fs.existsSync(join(root, path))) throw new Error(`COPY ${path}: is not in the build context`);
  return join(root, path);
}

/** Builds all stages; returns the last one. */
function build() {
  const stages = new Map();
  let stage;
  for (const instruction of DockerfileParser.parse(
    fs.readFileSync(join(root, "Dockerfile"), "utf8"),
  ).getInstructions()) {
    const name = instruction.getKeyword();
    console.log(`${name} ${(instruction.getArgumentsContent() ?? "").replace(/\s+/g, " ").slice(0, 100)}`);
    if (name === "FROM") {
      stage = new Stage(stages.size);
      stages.set(instruction.getBuildStage() ?? String(stages.size), stage);
    } else if (INSTRUCTIONS[name]) {
      INSTRUCTIONS[name](stage, instruction, stages);
    } else {
      throw new Error(`${name}: this check does not know it`);
    }
  }
  return stage;
}

/** Bytes of all files below a folder; on the way, nobody may write them any more. */
function seal(path) {
  const info = fs.lstatSync(path);
  if (info.isSymbolicLink()) return 0;
  if (process.getuid() === 0) fs.chownSync(path, 0, 0);
  fs.chmodSync(path, info.mode & 0o555);
  if (!info.isDirectory()) return info.size;
  return fs.readdirSync(path).reduce((sum, name) => sum + seal(join(path, name)), 0);
}

/** Starts the stage's server, asks it for bytes and its health, and stops it. */
async function serve(stage) {
  const [uid, gid] = stage.user.split(":").map(Number);
  if (!(uid > 0 && gid > 0)) throw new Error(`USER ${stage.user}: must be numbers, and not root`);
  const options = {
    cwd: stage.locate("."),
    env: { ...stage.env, HOME: "/nonexistent", TMPDIR: "/nonexistent", MBLM_PORT: PORT },
    ...(process.getuid() === 0 ? { uid, gid } : {}),
  };
  const start = ([program, ...args], stdio) => spawn(program, args, { ...options, stdio });
  const server = start([...stage.entrypoint, ...stage.command], ["ignore", "inherit", "inherit"]);
  const ended = new Promise((resolve) => server.once("exit", (code, signal) => resolve(code ?? signal)));
  try {
    const died = ended.then((status) => Promise.reject(new Error(`the server ended with ${status}`)));
    await Promise.race([untilHealthy(stage, start), died]);
    const body = JSON.stringify({ prompt: "It was ", max_tokens: 20, seed: 1 });
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`http://127.0.0.1:${PORT}/v1/completions`, { method: "POST", headers, body });
    const { usage, choices } = await answer.json();
    if (usage?.completion_tokens !== 20) throw new Error(`the server answered ${answer.status}`);
    console.log(`the server says: ${JSON.stringify(choices[0].text)}`);
    server.kill(stage.stopSignal);
    const status = await ended;
    if (status !== 0) throw new Error(`after ${stage.stopSignal} the server ended with ${status}`);
  } finally {
    server.kill("SIGKILL");
  }
}

/** Runs the image's own health check until it says yes. */
async function untilHealthy(stage, start) {
  for (let seconds = 0; seconds < START_SECONDS; seconds++) {
    const check = start(stage.healthcheck, "ignore");
    if ((await new Promise((resolve) => check.once("exit", resolve))) === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  throw new Error(`not healthy after ${START_SECONDS} s`);
}

try {
  const image = build();
  const bytes = seal(image.root);
  console.log(`beside the base image: ${(bytes / MIB).toFixed(0)} MiB`);
  await serve(image);
} finally {
  spawnSync("chmod", ["-R", "u+w", scratch]);
  fs.rmSync(scratch, { recursive: true, force: true });
}
