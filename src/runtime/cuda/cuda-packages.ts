/** Which of NVIDIA's packages on PyPI has a library. */
export interface CudaPackage {
  readonly project: string;
  readonly version: string;
}

/** Those of CUDA 13.0 update 2, which every driver for CUDA 13 can run; by the names of the libraries that they hold. */
const PACKAGES: readonly (readonly [library: RegExp, project: string, version: string])[] = [
  [/^libcudart\.so\.13$/, "nvidia-cuda-runtime", "13.0.96"],
  [/^libcublas(Lt)?\.so\.13$/, "nvidia-cublas", "13.1.0.3"],
  [/^libcurand\.so\.10$/, "nvidia-curand", "10.4.0.35"],
  [/^libnvrtc(-builtins)?\.so\.13(\.\d+)?$/, "nvidia-cuda-nvrtc", "13.0.88"],
  [/^libnvJitLink\.so\.13$/, "nvidia-nvjitlink", "13.0.88"],
  [/^libcufft\.so\.12$/, "nvidia-cufft", "12.0.0.61"],
];

/** The package that holds the library; undefined for libraries that are not CUDA's. */
export function packageOf(library: string): CudaPackage | undefined {
  const found = PACKAGES.find(([pattern]) => pattern.test(library));
  return found && { project: found[1], version: found[2] };
}
