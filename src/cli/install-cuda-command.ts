import { resolve } from "node:path";
import { Command } from "commander";
import { environment } from "../config/environment.js";
import { MblmError } from "../errors.js";
import { defaultCudaDir } from "../runtime/cuda/cuda-folder.js";
import { describeState } from "../runtime/cuda/install-report.js";

interface InstallCommandOptions {
  readonly dir?: string;
  readonly from?: string;
  readonly indexUrl?: string;
  readonly withCudaLibraries?: boolean;
  readonly check?: boolean;
}

/** Libraries of CUDA are missing: what was asked for is done, and yet no GPU can be used. */
const INCOMPLETE = 3;

/** `mblm-server install-cuda`: what `--device cuda` needs beside the package. */
export function installCudaCommand(): Command {
  return new Command("install-cuda")
    .description("fetch and check what running on an NVIDIA GPU needs: ONNX Runtime's CUDA provider, CUDA's libraries")
    .option("--from <path>", "a wheel of onnxruntime-gpu, or a folder with its libraries, instead of fetching it")
    .option("--dir <folder>", `where the libraries go (default: ${defaultCudaDir(environment)})`)
    .option("--index-url <url>", "package index to fetch from (default: PIP_INDEX_URL, else PyPI)")
    .option("--with-cuda-libraries", "fetch those of CUDA's libraries, too, that are found nowhere (at most 490 MB)")
    .option("--check", "say what is there and what is missing; change nothing")
    .addHelpText(
      "after",
      "\nLinux on x86-64. Proxies are taken from HTTPS_PROXY and NO_PROXY, certificates from PIP_CERT or NODE_EXTRA_CA_CERTS.\n" +
        "Exit codes: 0 all is there, 1 it failed, 2 used wrongly, 3 libraries are still missing (the driver does not count).\n" +
        "\nExamples:\n" +
        "  $ mblm-server install-cuda --with-cuda-libraries\n" +
        "  $ mblm-server install-cuda --from onnxruntime_gpu-1.30.0-cp312-cp312-manylinux_2_28_x86_64.whl --dir /opt/cuda\n",
    )
    .action(run);
}

async function run(options: InstallCommandOptions): Promise<void> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new MblmError(
      "runtime_unavailable",
      `CUDA needs Linux on x86-64; this is ${process.platform} on ${process.arch}`,
    );
  }
  // Loaded only here: no other command fetches anything.
  const { openInstaller } = await import("../runtime/cuda/open-installer.js");
  const indexUrl = options.indexUrl ?? environment.PIP_INDEX_URL;
  if (indexUrl && !/^https?:\/\//.test(indexUrl)) {
    throw new MblmError(
      "config_invalid",
      `--index-url: ${indexUrl} is not an address that begins with http:// or https://`,
    );
  }
  const dir = resolve(options.dir ?? defaultCudaDir(environment));
  const installer = openInstaller({
    dir,
    ...(options.from === undefined ? {} : { from: resolve(options.from) }),
    ...(indexUrl ? { indexUrl } : {}),
    withCudaLibraries: options.withCudaLibraries === true,
    say: (line) => process.stderr.write(`${line}\n`),
    ...(process.stderr.isTTY ? { onProgress: showProgress } : {}),
  });
  try {
    const state = options.check ? installer.check() : await installer.install();
    process.stdout.write(describeState(dir, state));
    if (state.complaint !== undefined || state.missing.length > 0) process.exitCode = INCOMPLETE;
  } finally {
    await installer.close();
  }
}

const MEGA = 1e6;

/** One line that is written over and over. */
function showProgress(name: string, received: number, total: number | undefined): void {
  const share =
    total === undefined ? "" : ` of ${(total / MEGA).toFixed(0)} MB, ${Math.floor((100 * received) / total)} %`;
  const end = received === total ? "\n" : "";
  process.stderr.write(`\r  ${name}: ${(received / MEGA).toFixed(0)} MB${share}   ${end}`);
}
