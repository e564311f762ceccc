// Products of few rows of activations (M ≤ 8) with a matrix: bound by reading the matrix once, and by latency.
//
// A block of 8 warps computes a few output rows. Each lane first requests its weights of these rows (they do not depend on the kernel before), then
// waits for the predecessor, and the block brings the activations into shared memory. A norm is applied afterwards: with h = s·(x∘gain), W·h is
// s·(W·(x∘gain)), so that s, a sum over all of x, is not needed before the result is.
//
// The order of every sum follows from K, N and the type alone: a row gets the same bits whatever M is and whatever the other rows are.
#pragma once
#include "device.cuh"

namespace mblm::cuda::matvec {

enum class Kind { norm_linear, linear, linear_add };

/// Arguments of all three operators; x is float for norm_linear and T otherwise, y is float for linear_add and T otherwise.
struct Problem {
  int M, N;
  int64_t K;
  Norm norm;
  bool gelu;
  const void* x;
  const float* gain;
  const void* w;
  const float* bias;
  const float* prev;
  int prev_rows;
  const float* residual;
  void* y;
};

/// Channels of x in shared memory at a time.
constexpr int TILE = 2048;
/// They are brought there four by four, by as many lanes: those of this many warps, whether a block has them or does the work of several with one.
constexpr int FILL_WARPS = 8;
constexpr int FILL = 4 * WARP * FILL_WARPS;
constexpr int FILLS = TILE / FILL;

template <typename T, Kind KIND>
using Input = std::conditional_t<KIND == Kind::norm_linear, float, T>;
template <typename T, Kind KIND>
using Output = std::conditional_t<KIND == Kind::linear_add, float, T>;

/// Eight weights in a row need two 16-byte reads of x; with the two in separate halves of the tile, a warp's reads have no bank conflict.
template <int VEC>
__device__ __forceinline__ int tile_index(int k) {
  return VEC == 8 ? (k & 4) * (TILE / 8) + (k >> 3) * 4 : k;
}

template <typename T>
__device__ __forceinline__ void unpack(const uint4& packed, float (&out)[16 / sizeof(T)]) {
  const T* values = reinterpret_cast<const T*>(&packed);
#pragma unroll
  for (int i = 0; i < static_cast<int>(16 / sizeof(T)); i++) out[i] = to_float(values[i]);
}

/// Four channels of row m of what is multiplied, before the gain.
template <typename T, Kind KIND>
__device__ __forceinline__ void read_input(const Problem& p, int m, int64_t k, float (&out)[4]) {
  if constexpr (KIND == Kind::norm_linear) {
    const bool is_shifted = p.prev != nullptr && k >= p.K / 2;
    const float* source = is_shifted ? p.prev + (p.prev_rows == 1 ? 0 : m) * p.K : static_cast<const float*>(p.x) + m * p.K;
    load(out, source + k);
  } else {
    load(out, static_cast<const T*>(p.x) + m * p.K + k);
  }
}

template <typename T, Kind KIND>
__device__ __forceinline__ void finish(const Problem& p, int m, int row, float total, float sum_of_squares, float bias, float residual) {
  if constexpr (KIND == Kind::norm_linear) total *= norm_scale(p.norm, sum_of_squares, p.K);
  total += bias;
  if constexpr (KIND == Kind::linear_add) total += residual;
  if (KIND != Kind::linear_add && p.gelu) total = gelu(total);
  static_cast<Output<T, KIND>*>(p.y)[static_cast<int64_t>(m) * p.N + row] = from_float<Output<T, KIND>>(total);
}

/// Few threads a block for few rows, so that the blocks spread evenly; more for many, as each block reads all of x.
template <int M>
constexpr int NUM_THREADS = M <= 2 ? 128 : 256;
/// Blocks that are to fit on a multiprocessor: those of the next kernel fetch their weights beside this one's.
template <int M>
constexpr int MIN_BLOCKS = M == 1 ? 8 : M == 2 ? 6 : 2;

/// M: rows computed (those ≥ p.M repeat the last and are not stored). ROWS: output rows of a warp. SPLIT: warps that share an output row.
template <typename T, Kind KIND, int M, int ROWS, int SPLIT>
__global__ void __launch_bounds__(NUM_THREADS<M>, MIN_BLOCKS<M>) kernel(const Problem p) {
  constexpr int THREADS = NUM_THREADS<M>;
  constexpr int NUM_WARPS = THREADS / WARP;
  constexpr int LANES = FILL_WARPS / NUM_WARPS;  // of the filling warps, that a thread stands for
  constexpr int FILLS_AT_ONCE = M == 1 && KIND != Kind::norm_linear ? FILLS : 1;
  constexpr int VEC = 16 / sizeof(T);
  constexpr int SPAN = WARP * VEC * SPLIT;
  constexpr int UNROLL = 4 / (SPLIT * ROWS);
  constexpr int BATCH = SPAN * UNROLL;
  constexpr int BATCHES_OF_TILE = TILE / BATCH;
  static_assert(TILE % BATCH == 0 && FILL % BATCH == 0 && ROWS * M <= WARP);  // what is filled is whole batches
  extern __shared__ float4 shared[];
  float* tile = reinterpret_cast<float*>(shared);  // [M][TILE]
  __shared__ float squares[M][FILL_WARPS];
  __shared__ float partial[NUM_WARPS][ROWS * M];

  const int lane = threadIdx.x % WARP;
  const int warp = threadIdx.x / WARP;
  const int part = warp % SPLIT;
  const int first_row = (blockIdx.x * (NUM_WARPS / SPLIT) + warp / SPLIT) * ROWS;
  const int64_t K = p.K;
  const int num_batches = static_cast<int>((K + BATCH - 1) / BATCH);

  const int my_row = first_row + lane / M;
  const int my_m = lane % M;
  const bool is_mine = part == 0 && lane < ROWS * M && my_row < p.N && my_m < p.M;

  uint4 current[ROWS][UNROLL];
  uint4 following[ROWS][UNROLL];
  const auto load_batch = [&](int batch, uint4(&out)[ROWS][UNROLL]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        const int64_t k = static_cast<int64_t>(batch) * BATCH + u * SPAN + (part * WARP + lane) * VEC;
        out[r][u] = make_uint4(0, 0, 0, 0);
        if (k < K && first_row + r < p.N) out[r][u] = load_weights(static_cast<const T*>(p.w) + (first_row + r) * K + k);
      }
    }
  };
  load_batch(0, current);
  load_batch(1, following);
  if (KIND == Kind::norm_linear && threadIdx.x * 32 < K) prefetch_l2(p.gain + threadIdx.x * 32);
  const float bias = is_mine && p.bias != nullptr ? p.bias[my_row] : 0.f;
  release_successor();
  wait_for_predecessor();

  float residual = 0.f;
  if constexpr (KIND == Kind::linear_add) {
    if (is_mine) residual = p.residual[static_cast<int64_t>(my_m) * p.N + my_row];
  }
  float square[M][LANES] = {};
  float sums[ROWS][M][2] = {};
  for (int first_batch = 0; first_batch < num_batches; first_batch += BATCHES_OF_TILE) {
    const int64_t start = static_cast<int64_t>(first_batch) * BATCH;
    const bool is_last = first_batch + BATCHES_OF_TILE >= num_batches;
    if (first_batch > 0) __syncthreads();
#pragma unroll
    for (int first = 0; first < FILLS; first += FILLS_AT_ONCE) {
      float values[FILLS_AT_ONCE][LANES][M][4] = {};
      float gain[FILLS_AT_ONCE][LANES][4] = {};
#pragma unroll
      for (int i = 0; i < FILLS_AT_ONCE; i++) {
#pragma unroll
        for (int l = 0; l < LANES; l++) {
          const int64_t k = start + (first + i) * FILL + (l * THREADS + threadIdx.x) * 4;
          if (k < K) {
#pragma unroll
            for (int m = 0; m < M; m++) read_input<T, KIND>(p, min(m, p.M - 1), k, values[i][l][m]);
            if constexpr (KIND == Kind::norm_linear) load(gain[i][l], p.gain + k);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < FILLS_AT_ONCE; i++) {
        if (start + (first + i) * FILL >= K) break;
#pragma unroll
        for (int l = 0; l < LANES; l++) {
          const int index = (first + i) * FILL + (l * THREADS + threadIdx.x) * 4;
#pragma unroll
          for (int m = 0; m < M; m++) {
            if constexpr (KIND == Kind::norm_linear) {
#pragma unroll
              for (int j = 0; j < 4; j++) {
                square[m][l] = fmaf(values[i][l][m][j], values[i][l][m][j], square[m][l]);
                values[i][l][m][j] *= gain[i][l][j];
              }
            }
            store(tile + m * TILE + tile_index<VEC>(index), values[i][l][m]);
          }
        }
      }
    }
    if (KIND == Kind::norm_linear && is_last) {
#pragma unroll
      for (int m = 0; m < M; m++) {
#pragma unroll
        for (int l = 0; l < LANES; l++) {
          const float sum = warp_sum(square[m][l]);
          if (lane == 0) squares[m][l * NUM_WARPS + warp] = sum;
        }
      }
    }
    __syncthreads();

    for (int batch = first_batch; batch < min(first_batch + BATCHES_OF_TILE, num_batches); batch++) {
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        const int index = (batch - first_batch) * BATCH + u * SPAN + (part * WARP + lane) * VEC;
        float weights[ROWS][VEC];
#pragma unroll
        for (int r = 0; r < ROWS; r++) unpack<T>(current[r][u], weights[r]);
#pragma unroll
        for (int m = 0; m < M; m++) {  // beyond K both weights and x are zeros
          float x[VEC];
#pragma unroll
          for (int i = 0; i < VEC; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(tile + m * TILE + tile_index<VEC>(index + i));
            x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
          }
#pragma unroll
          for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int i = 0; i < VEC; i++) sums[r][m][i % 2] = fmaf(weights[r][i], x[i], sums[r][m][i % 2]);
          }
        }
      }
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int u = 0; u < UNROLL; u++) current[r][u] = following[r][u];
      }
      if (batch + 2 < num_batches) load_batch(batch + 2, following);
    }
  }

  float mine = 0.f;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int m = 0; m < M; m++) {
      const float total = warp_sum(sums[r][m][0] + sums[r][m][1]);
      if (lane == r * M + m) mine = total;
    }
  }
  if constexpr (SPLIT > 1) {
    if (lane < ROWS * M) partial[warp][lane] = mine;
    __syncthreads();
    if (is_mine) {
#pragma unroll
      for (int s = 1; s < SPLIT; s++) mine += partial[warp + s][lane];
    }
  }
  if (!is_mine) return;
  float sum_of_squares = 0.f;
  if constexpr (KIND == Kind::norm_linear) {
#pragma unroll
    for (int w = 0; w < FILL_WARPS; w++) sum_of_squares += squares[my_m][w];
  }
  finish<T, KIND>(p, my_m, my_row, mine, sum_of_squares, bias, residual);
}

/// Any K and alignment: one warp per output value.
template <typename T, Kind KIND>
__global__ void __launch_bounds__(WARP) scalar_kernel(const Problem p) {
  release_successor();
  wait_for_predecessor();
  const int row = blockIdx.x;
  const int m = blockIdx.y;
  float sum = 0.f;
  float square = 0.f;
  for (int64_t k = threadIdx.x; k < p.K; k += WARP) {
    float x;
    if constexpr (KIND == Kind::norm_linear) {
      const bool is_shifted = p.prev != nullptr && k >= p.K / 2;
      x = is_shifted ? p.prev[(p.prev_rows == 1 ? 0 : m) * p.K + k] : static_cast<const float*>(p.x)[m * p.K + k];
      square += x * x;
      x *= p.gain[k];
    } else {
      x = to_float(static_cast<const T*>(p.x)[m * p.K + k]);
    }
    sum = fmaf(to_float(static_cast<const T*>(p.w)[row * p.K + k]), x, sum);
  }
  sum = warp_sum(sum);
  square = warp_sum(square);
  if (threadIdx.x > 0) return;
  const float bias = p.bias == nullptr ? 0.f : p.bias[row];
  const float residual = KIND == Kind::linear_add ? p.residual[static_cast<int64_t>(m) * p.N + row] : 0.f;
  finish<T, KIND>(p, m, row, sum, square, bias, residual);
}

inline bool is_aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

template <typename T, Kind KIND, int M, int ROWS, int SPLIT>
void launch_kernel(const char* name, const Problem& p, Stream stream) {
  const size_t shared_bytes = sizeof(float) * M * TILE;
  constexpr int THREADS = NUM_THREADS<M>;
  launch(name, kernel<T, KIND, M, ROWS, SPLIT>, divide_up(p.N, THREADS / WARP / SPLIT * ROWS), THREADS, shared_bytes, stream, p);
}

/// With few output rows four warps share one, so that there are enough blocks. A choice by N alone: it decides the order of the sums.
template <typename T, Kind KIND, int M>
void launch_rows(const char* name, const Problem& p, Stream stream) {
  if (p.N < 768) return launch_kernel<T, KIND, M, 1, 4>(name, p, stream);
  // Two rows a warp halve the reads of shared memory. With short rows a lane's weights are still all on their way before the wait.
  const bool has_short_rows = p.K * static_cast<int64_t>(sizeof(T)) <= 2048;
  if (M >= 4 ? p.N >= 2048 : has_short_rows) return launch_kernel<T, KIND, M, 2, 1>(name, p, stream);
  launch_kernel<T, KIND, M, 1, 1>(name, p, stream);
}

template <Kind KIND>
void run(const char* name, DType type, const Problem& p, Stream stream) {
  if (p.M > 8) return record_error(cudaErrorInvalidValue, name);
  with_type(type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    if (p.K % 8 != 0 || !is_aligned(p.x) || !is_aligned(p.w) || !is_aligned(p.gain) || !is_aligned(p.prev)) {
      return launch(name, scalar_kernel<T, KIND>, dim3(p.N, p.M), WARP, 0, stream, p);
    }
    if (p.M <= 1) return launch_rows<T, KIND, 1>(name, p, stream);
    if (p.M <= 2) return launch_rows<T, KIND, 2>(name, p, stream);
    if (p.M <= 4) return launch_rows<T, KIND, 4>(name, p, stream);
    launch_rows<T, KIND, 8>(name, p, stream);
  });
}

}  // namespace mblm::cuda::matvec
