import { createHash } from "node:crypto";
import { FileServer, serveBytes, serveText } from "./file-server.js";
import { makeElf } from "./made-up-elf.js";
import { makeWheel } from "./made-up-wheel.js";

const ORT_VERSION = "1.30.0";

/** Puts a wheel onto an index at `/simple`. */
export function publish(server: FileServer, name: string, data: Buffer): void {
  const sha256 = createHash("sha256").update(data).digest("hex");
  const files = [{ filename: name, url: `/files/${name}`, hashes: { sha256 }, size: data.length }];
  const project = name.split("-")[0]!.replaceAll("_", "-");
  server.pages.set(`/simple/${project}/`, serveText("application/vnd.pypi.simple.v1+json", JSON.stringify({ files })));
  server.pages.set(`/files/${name}`, serveBytes(data));
}

/** A wheel of NVIDIA's with libraries of nothing but the names that they need. */
function cudaWheel(libraries: Readonly<Record<string, readonly string[]>>): Buffer {
  const files = Object.entries(libraries).map(([soname, needed]) => [
    `nvidia/cu13/lib/${soname}`,
    makeElf({ soname, needed }),
  ]);
  return makeWheel(Object.fromEntries(files));
}

/** A package index with everything that install-cuda fetches, all of it made up and small. */
export async function startMadeUpIndex(): Promise<FileServer> {
  const server = await FileServer.start();
  const cuda = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13"];
  const providers = makeWheel({
    "onnxruntime/capi/libonnxruntime_providers_shared.so": makeElf({ soname: "libonnxruntime_providers_shared.so" }),
    "onnxruntime/capi/libonnxruntime_providers_cuda.so": makeElf({
      soname: "libonnxruntime_providers_cuda.so",
      needed: [...cuda, "libcuda.so.1", "libc.so.6"],
      text: ORT_VERSION,
    }),
  });
  publish(server, `onnxruntime_gpu-${ORT_VERSION}-cp312-cp312-manylinux_2_28_x86_64.whl`, providers);
  publish(
    server,
    "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
    cudaWheel({ "libcublas.so.13": ["libcublasLt.so.13"], "libcublasLt.so.13": [] }),
  );
  publish(server, "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl", cudaWheel({ "libcurand.so.10": [] }));
  publish(
    server,
    "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl",
    cudaWheel({ "libcudart.so.13": [] }),
  );
  return server;
}
