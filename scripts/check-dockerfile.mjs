// Carries out the Dockerfile's steps without a container engine, in a folder per stage, and runs what comes out as the image
// would be run: as its user, on files that nobody may write. Base images are not fetched; this machine's Node stands for them.
// Of the target for GPUs everything but a GPU's work is carried out, with small made-up libraries from an index on this machine.
import { spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { DockerfileParser } from "dockerfile-ast";
import * as esbuild from "esbuild";
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
  /** For this stage's RUN only. */
  buildArguments = {};
  entrypoint = [];
  command = [];
  healthcheck = [];
  stopSignal = "SIGTERM";

  /** @param base an earlier stage, to begin with its files and settings */
  constructor(name, base) {
    Object.assign(this, structuredClone({ ...base }), { buildArguments: {} });
    this.root = join(scratch, name);
    if (base === undefined) fs.mkdirSync(this.root);
    else spawnSync("cp", ["-a", "--reflink=auto", base.root, this.root], { stdio: "inherit" });
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

/** Values for ARG, as `docker build --build-arg` gives them. */
const buildArguments = {};

const strings = (instruction) => instruction.getJSONStrings().map((one) => one.getJSONValue());
const words = (instruction) => instruction.getArguments().map((one) => one.getValue());

/** What each instruction does; one that is not here stops the check. */
const INSTRUCTIONS = {
  ARG(stage, instruction) {
    const argument = instruction.getProperty();
    const name = argument.getName();
    stage.buildArguments[name] = buildArguments[name] ?? argument.getValue() ?? "";
  },
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
  /** Waited for, and not blocking: it may fetch from this process. */
  async RUN(stage, instruction) {
    for (const flag of instruction.getFlags()) mount(stage, flag);
    const command = instruction.getArgumentsContent().replace(/\\\n/g, " ");
    const child = spawn("/bin/sh", ["-c", command], {
      cwd: stage.locate("."),
      env: { ...stage.env, ...stage.buildArguments },
      stdio: "inherit",
    });
    const status = await new Promise((resolve) => child.once("exit", resolve));
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

/** A cache of the builder is an empty folder here; other mounts are not known. */
function mount(stage, flag) {
  const options = new Map(
    flag
      .getValue()
      .split(",")
      .map((option) => option.split("=")),
  );
  if (flag.getName() !== "mount" || options.get("type") !== "cache")
    throw new Error(`${flag}: this check does not know it`);
  fs.mkdirSync(stage.locate(options.get("target")), { recursive: true });
}

/** The Dockerfile's stages by name, each with its first line and those that follow it. */
function readStages() {
  const stages = new Map();
  let current;
  const text = fs.readFileSync(join(root, "Dockerfile"), "utf8");
  for (const instruction of DockerfileParser.parse(text).getInstructions()) {
    if (instruction.getKeyword() === "FROM") {
      current = { base: instruction.getImage(), instructions: [] };
      stages.set(instruction.getBuildStage() ?? String(stages.size), current);
    } else {
      current.instructions.push(instruction);
    }
  }
  return stages;
}

const plans = readStages();
/** Those that are built. */
const built = new Map();

/** Builds a stage, and before it those that it begins with or copies from, as a builder does; each once. */
async function build(name) {
  if (built.has(name)) return built.get(name);
  const { base, instructions } = plans.get(name);
  const stage = new Stage(name, plans.has(base) ? await build(base) : undefined);
  for (const instruction of instructions) {
    const from = instruction.getFromFlag?.()?.getValue();
    if (from !== undefined) await build(from);
    const keyword = instruction.getKeyword();
    console.log(`${name}: ${keyword} ${(instruction.getArgumentsContent() ?? "").replace(/\s+/g, " ").slice(0, 100)}`);
    if (INSTRUCTIONS[keyword] === undefined) throw new Error(`${keyword}: this check does not know it`);
    await INSTRUCTIONS[keyword](stage, instruction, built);
  }
  built.set(name, stage);
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

/** What starts programs as the image does: as its user, in its folder, with nothing to write to. */
function starter(stage) {
  const [uid, gid] = stage.user.split(":").map(Number);
  if (!(uid > 0 && gid > 0)) throw new Error(`USER ${stage.user}: must be numbers, and not root`);
  const options = {
    cwd: stage.locate("."),
    env: { ...stage.env, HOME: "/nonexistent", TMPDIR: "/nonexistent", MBLM_PORT: PORT },
    ...(process.getuid() === 0 ? { uid, gid } : {}),
  };
  return ([program, ...args], stdio) => spawn(program, args, { ...options, stdio });
}

/** Starts the stage's server, asks it for bytes and its health, and stops it. */
async function serve(stage) {
  const start = starter(stage);
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
    if (await isHealthy(stage, start)) throw new Error("the health check says yes to a server that has ended");
  } finally {
    server.kill("SIGKILL");
  }
}

/** What the image's own health check says. */
async function isHealthy(stage, start) {
  const check = start(stage.healthcheck, "ignore");
  return (await new Promise((resolve) => check.once("exit", resolve))) === 0;
}

async function untilHealthy(stage, start) {
  for (let seconds = 0; seconds < START_SECONDS; seconds++) {
    if (await isHealthy(stage, start)) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  throw new Error(`not healthy after ${START_SECONDS} s`);
}

/** The image finds everything that a GPU needs, but for the driver, which comes from the host. */
async function findsCuda(stage) {
  const check = starter(stage)(
    [...stage.entrypoint, "install-cuda", "--check", "--dir", stage.environment.MBLM_CUDA_DIR],
    ["ignore", "pipe", "inherit"],
  );
  let said = "";
  check.stdout.on("data", (data) => {
    said += data;
  });
  const status = await new Promise((resolve) => check.once("close", resolve));
  console.log(said);
  if (status !== 0) throw new Error(`the image lacks something that a GPU needs (${status})`);
  const operators = join("native", "prebuilt", "linux-x64", "libmblm_ops_cuda.so");
  if (!fs.existsSync(stage.locate(operators))) throw new Error(`the image has no ${operators}`);
}

/** The tests' index of made-up packages. */
async function startMadeUpIndex() {
  const outfile = join(scratch, "made-up-index.mjs");
  const entry = join(root, "test", "runtime", "cuda", "made-up-index.ts");
  await esbuild.build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    logLevel: "error",
  });
  const module = await import(pathToFileURL(outfile).href);
  return module.startMadeUpIndex();
}

let index;
try {
  const cpu = [...plans.keys()].at(-1); // what is built when no target is named
  await build(cpu);
  // Providers are made for one platform only.
  if (process.platform === "linux" && process.arch === "x64") {
    index = await startMadeUpIndex();
    buildArguments.INSTALL_CUDA_ARGS = `--index-url ${index.url}/simple`;
    await build("cuda");
  }
  for (const target of [cpu, "cuda"].filter((name) => built.has(name))) {
    const image = built.get(target);
    const bytes = seal(image.root);
    console.log(`${target}: beside the base image: ${(bytes / MIB).toFixed(0)} MiB`);
    if (target === "cuda") await findsCuda(image);
    await serve(image);
  }
} finally {
  await index?.stop();
  spawnSync("chmod", ["-R", "u+w", scratch]);
  fs.rmSync(scratch, { recursive: true, force: true });
}
