// The choice of the next id. All arithmetic of the rule is float64 with the roundings spelled out, and every sum runs over ascending ids (of the
// filters: over descending weights) in one thread, as the rule of src/sampling/sampler.ts does: what may differ is exp alone.
#include "automaton.cuh"
#include "device.cuh"
#include "philox.cuh"

namespace mblm {
namespace {

using namespace cuda;

constexpr int NUM_WORKERS = 256;
constexpr int WORKER_WARPS = NUM_WORKERS / WARP;
/// The workers, and a warp that sums while they rank.
constexpr int THREADS = NUM_WORKERS + WARP;
constexpr int MAX_IDS = 1024;
constexpr int IDS_PER_WORKER = MAX_IDS / NUM_WORKERS;

struct Best {
  double score;
  int id;

  __device__ bool is_before(const Best& other) const { return score > other.score || (score == other.score && id < other.id); }
};

struct Scratch {
  double weights[MAX_IDS];  // by id; later of the kept ids, and then their running sums
  double sorted[MAX_IDS];   // by rank
  short kept[MAX_IDS];      // kept ids, ascending
  int kept_of[IDS_PER_WORKER * WORKER_WARPS];
  Best best[WORKER_WARPS];
  double total;
  int num_reached;
};

/// The sum of the first `count` weights, in order; the loads run ahead of the additions.
__device__ double sum_in_order(const double* values, int count) {
  double sum = 0;
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    double next[8];
#pragma unroll
    for (int k = 0; k < 8; k++) next[k] = values[i + k];
#pragma unroll
    for (int k = 0; k < 8; k++) sum = __dadd_rn(sum, next[k]);
  }
  for (; i < count; i++) sum = __dadd_rn(sum, values[i]);
  return sum;
}

/// Replaces the values by their running sums.
__device__ double run_sums(double* values, int count) {
  double sum = 0;
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    double next[8];
#pragma unroll
    for (int k = 0; k < 8; k++) next[k] = values[i + k];
#pragma unroll
    for (int k = 0; k < 8; k++) values[i + k] = sum = __dadd_rn(sum, next[k]);
  }
  for (; i < count; i++) values[i] = sum = __dadd_rn(sum, values[i]);
  return sum;
}

/// How many of the heaviest are taken until their sum reaches `target`, at most `limit`.
__device__ int count_until(const double* sorted, int limit, double target) {
  double reached = 0;
  int taken = 0;
  while (taken < limit && reached < target) {
    double next[8];
    const int count = min(8, limit - taken);
#pragma unroll
    for (int k = 0; k < 8; k++) next[k] = k < count ? sorted[taken + k] : 0;
#pragma unroll
    for (int k = 0; k < 8; k++) {
      if (k < count && reached < target) {
        reached = __dadd_rn(reached, next[k]);
        taken++;
      }
    }
  }
  return taken;
}

/// The score of an id after bias and penalties, in the order of src/sampling/score-adjustments.ts.
__device__ double adjusted_score(const Sample& a, const PatchRow& row, int64_t b, int id) {
  double score = a.logits[b * a.V + id];
  const int64_t entry = row.slot * a.V + id;
  if (row.flags & ROW_BIAS) score = __dadd_rn(score, a.bias[entry]);
  if ((row.flags & ROW_REPETITION) && (a.id_flags[entry] & ID_SEEN)) {
    score = score > 0 ? __ddiv_rn(score, row.repetition) : __dmul_rn(score, row.repetition);
  }
  if (row.flags & ROW_OCCURRENCE) {
    const int count = a.counts[entry];
    if (count > 0) score = __dsub_rn(score, __dadd_rn(row.presence, __dmul_rn(row.frequency, count)));
  }
  return score;
}

struct Turn {
  int num_sampled;  // before this output, in this patch
  int state;        // of the automaton
};

__device__ bool is_allowed(const Sample& a, const PatchRow& row, const Turn& turn, int id) {
  const uint8_t flags = a.id_flags[row.slot * a.V + id];
  const bool may_end = turn.num_sampled >= row.num_unended;
  if ((row.flags & ROW_DISALLOWED) && (flags & ID_DISALLOWED)) return false;
  if ((flags & ID_END) && !may_end) return false;
  if (!(row.flags & ROW_CONSTRAINT)) return true;
  return Automaton(row).allows(turn.state, id, row.num_left - turn.num_sampled, may_end, flags & ID_END, row.flags & ROW_CAN_END);
}

/// Keeps the weights of the filters and inverts their cumulated sum. All threads take part; the id is right in thread 0.
__device__ int draw(const PatchRow& row, int V, double (&weight)[IDS_PER_WORKER], double uniform, Scratch& s) {
  const int tid = threadIdx.x;
  const bool is_worker = tid < NUM_WORKERS;
  const int k = row.top_k == 0 ? V : min(row.top_k, V);
  const bool has_top_p = row.top_p < 1;
  if (k < V || has_top_p) {
    int rank[IDS_PER_WORKER];
    if (is_worker) {
#pragma unroll
      for (int q = 0; q < IDS_PER_WORKER; q++) {
        const int id = q * NUM_WORKERS + tid;
        rank[q] = 0;
        if (id >= V) break;
        // Weights are not negative: their bits order as they do. An equal one of a lower id counts as heavier.
        const long long own = __double_as_longlong(weight[q]);
#pragma unroll 8
        for (int other = 0; other < V; other++) rank[q] += __double_as_longlong(s.weights[other]) + (other < id) > own;
        s.sorted[rank[q]] = weight[q];
      }
    } else if (k == V && tid == NUM_WORKERS) {
      s.total = sum_in_order(s.weights, V);
    }
    __syncthreads();
    if (k < V) {
      if (is_worker) {
#pragma unroll
        for (int q = 0; q < IDS_PER_WORKER; q++) {
          const int id = q * NUM_WORKERS + tid;
          if (id < V && rank[q] >= k) s.weights[id] = weight[q] = 0;
        }
      }
      __syncthreads();
      if (has_top_p && tid == 0) s.total = sum_in_order(s.weights, V);
    }
    if (has_top_p) {
      if (tid == 0) s.num_reached = count_until(s.sorted, k, __dmul_rn(row.top_p, s.total));
      __syncthreads();
      if (is_worker) {
#pragma unroll
        for (int q = 0; q < IDS_PER_WORKER; q++) {
          if (q * NUM_WORKERS + tid < V && rank[q] >= s.num_reached) weight[q] = 0;
        }
      }
    }
  }
  // Compacts the kept ids, ascending. The heaviest weight is exp(0) = 1.
  unsigned kept[IDS_PER_WORKER];
  const int lane = tid % WARP;
  const int warp = tid / WARP;
#pragma unroll
  for (int q = 0; q < IDS_PER_WORKER; q++) {
    const bool is_kept = is_worker && q * NUM_WORKERS + tid < V && weight[q] > 0 && !(row.min_p > 0 && weight[q] < row.min_p);
    kept[q] = __ballot_sync(FULL_WARP, is_kept);
    if (is_worker && lane == 0) s.kept_of[q * WORKER_WARPS + warp] = __popc(kept[q]);
  }
  __syncthreads();
  int num_kept = 0;
  if (is_worker) {
    int start[IDS_PER_WORKER];
#pragma unroll
    for (int q = 0; q < IDS_PER_WORKER; q++) {
#pragma unroll
      for (int w = 0; w < WORKER_WARPS; w++) {
        if (w == warp) start[q] = num_kept;
        num_kept += s.kept_of[q * WORKER_WARPS + w];
      }
    }
#pragma unroll
    for (int q = 0; q < IDS_PER_WORKER; q++) {
      if (!(kept[q] >> lane & 1)) continue;
      const int place = start[q] + __popc(kept[q] & ((1u << lane) - 1));
      s.weights[place] = weight[q];
      s.kept[place] = static_cast<short>(q * NUM_WORKERS + tid);
    }
  }
  __syncthreads();
  if (tid >= WARP) return 0;
  double target = 0;
  if (lane == 0) target = __dmul_rn(uniform, run_sums(s.weights, num_kept));
  target = __shfl_sync(FULL_WARP, target, 0);
  __syncwarp();
  for (int first = 0; first < num_kept; first += WARP) {
    const unsigned above = __ballot_sync(FULL_WARP, first + lane < num_kept && s.weights[first + lane] > target);
    if (above != 0) return s.kept[first + __ffs(above) - 1];
  }
  return s.kept[num_kept - 1];  // rounding left the sum at the target
}

__global__ void __launch_bounds__(THREADS) sample_kernel(const Sample a) {
  __shared__ Scratch s;
  release_successor();
  wait_for_predecessor();
  const int64_t b = blockIdx.x;
  const int tid = threadIdx.x;
  const bool is_worker = tid < NUM_WORKERS;
  const int V = static_cast<int>(a.V);
  const int step = static_cast<int>(a.step);
  const PatchRow& row = a.rows[b];
  const uint32_t flags = row.flags;
  int32_t* ids_out = a.ids_out + b * a.P;
  if ((flags & ROW_LOGITS) && is_worker) {
    for (int id = tid; id < V; id += NUM_WORKERS) a.logits_out[(b * a.P + step) * V + id] = a.logits[b * V + id];
  }
  const int num_sampled = step - row.num_forced;
  const int earlier = num_sampled > 0 ? ids_out[step - 1] : 0;
  if (num_sampled < 0 || earlier < 0) {
    if (tid > 0) return;
    const int id = num_sampled < 0 ? a.forced[b * a.P + step] : earlier;
    ids_out[step] = id;
    a.next[b] = max(id, 0);
    return;
  }
  const Turn turn{num_sampled, num_sampled == 0 || !(flags & ROW_CONSTRAINT) ? row.automaton_state : a.cursor[b]};

  double score[IDS_PER_WORKER];
  Best best{-INFINITY, 0};
  bool has_allowed = false;
  bool has_nan = false;
#pragma unroll
  for (int q = 0; q < IDS_PER_WORKER; q++) {
    const int id = q * NUM_WORKERS + tid;
    score[q] = -INFINITY;
    if (!is_worker || id >= V || !is_allowed(a, row, turn, id)) continue;
    score[q] = adjusted_score(a, row, b, id);
    has_allowed = true;
    has_nan |= isnan(score[q]);
    const Best own{score[q], id};
    if (own.is_before(best)) best = own;
  }
  has_allowed = __syncthreads_or(has_allowed);
  has_nan = __syncthreads_or(has_nan);
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance >>= 1) {
    const Best other{__shfl_xor_sync(FULL_WARP, best.score, distance), __shfl_xor_sync(FULL_WARP, best.id, distance)};
    if (other.is_before(best)) best = other;
  }
  if (is_worker && tid % WARP == 0) s.best[tid / WARP] = best;
  __syncthreads();
  best = s.best[0];
#pragma unroll
  for (int w = 1; w < WORKER_WARPS; w++) {
    if (s.best[w].is_before(best)) best = s.best[w];
  }

  int id = best.id;
  if (!has_allowed) {
    id = ID_NONE_ALLOWED;
  } else if (has_nan || !isfinite(best.score)) {
    id = ID_NOT_FINITE;
  } else if (row.temperature != 0) {
    double weight[IDS_PER_WORKER];
#pragma unroll
    for (int q = 0; q < IDS_PER_WORKER; q++) {
      weight[q] = 0;
      if (!is_worker || q * NUM_WORKERS + tid >= V) continue;
      weight[q] = exp(__ddiv_rn(__dsub_rn(score[q], best.score), row.temperature));
      s.weights[q * NUM_WORKERS + tid] = weight[q];
    }
    const uint64_t index = (static_cast<uint64_t>(row.index_high) << 32 | row.index_low) + num_sampled;
    const double uniform = uniform_at(row.seed_low, row.seed_high, index);
    __syncthreads();
    id = draw(row, V, weight, uniform, s);
  }
  if (tid > 0) return;
  ids_out[step] = id;
  a.next[b] = max(id, 0);
  if (id < 0) return;
  const int64_t entry = row.slot * a.V + id;
  a.counts[entry]++;
  a.id_flags[entry] |= ID_SEEN;
  if (flags & ROW_CONSTRAINT) {
    const int following = Automaton(row).after(turn.state, id);
    a.cursor[b] = following == NO_STATE ? turn.state : following;
  }
}

}  // namespace

void sample(const Sample& a, Stream stream) {
  if (a.V > MAX_IDS) return record_error(cudaErrorInvalidValue, "Sample: more than 1024 ids");
  launch("Sample", sample_kernel, a.B, THREADS, 0, stream, a);
}

}  // namespace mblm
