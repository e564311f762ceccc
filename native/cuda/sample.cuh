// The choice of the next id. All arithmetic of the rule is float64 with the roundings spelled out, and every sum runs over ascending ids (of the
// filters: over descending weights) in one thread, as the rule of src/sampling/sampler.ts does: what may differ is exp alone.
#pragma once
#include "automaton.cuh"
#include "device.cuh"
#include "philox.cuh"

namespace mblm::cuda {

constexpr int NUM_WORKERS = 256;
constexpr int WORKER_WARPS = NUM_WORKERS / WARP;
/// The workers, and a warp that sums while they rank.
constexpr int SAMPLE_THREADS = NUM_WORKERS + WARP;
constexpr int MAX_IDS = 1024;

/// Memory of a row's threads. Worker w has the ids w, w + 256, … (PER_WORKER of them).
template <int PER_WORKER>
struct Scratch {
  double weights[PER_WORKER * NUM_WORKERS];  // by id
  double kept[PER_WORKER * NUM_WORKERS];     // of the kept ids, ascending; at last their running sums
  double sorted[PER_WORKER * NUM_WORKERS];   // of the kept ids, the heaviest first
  short ids[PER_WORKER * NUM_WORKERS];       // the kept ids, ascending
  int num_kept[PER_WORKER * WORKER_WARPS];
  uint64_t best_key[WORKER_WARPS];
  int best_id[WORKER_WARPS];
  int flags[WORKER_WARPS];
  double sum[WORKER_WARPS];
  double total;
  int num_reached;
};

/// The sum of the first `count` weights, in order; the loads run ahead of the additions.
__device__ inline double sum_in_order(const double* values, int count) {
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
__device__ inline double run_sums(double* values, int count) {
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
__device__ inline int count_until(const double* sorted, int limit, double target) {
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
__device__ inline double adjusted_score(const Sample& a, const PatchRow& row, const float* logits, int id) {
  double score = logits[id];
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

__device__ inline bool is_allowed(const Sample& a, const PatchRow& row, const Turn& turn, int id) {
  const uint8_t flags = a.id_flags[row.slot * a.V + id];
  const bool may_end = turn.num_sampled >= row.num_unended;
  if ((row.flags & ROW_DISALLOWED) && (flags & ID_DISALLOWED)) return false;
  if ((flags & ID_END) && !may_end) return false;
  if (!(row.flags & ROW_CONSTRAINT)) return true;
  return Automaton(row).allows(turn.state, id, row.num_left - turn.num_sampled, may_end, flags & ID_END, row.flags & ROW_CAN_END);
}

/// Lists the ids with `is_kept`, ascending, in `s.kept` and `s.ids`; their number. `place`: where this worker's ids are listed.
template <typename Threads, int PER_WORKER>
__device__ int list_kept(const bool (&is_kept)[PER_WORKER], const double (&weight)[PER_WORKER], int (&place)[PER_WORKER], Scratch<PER_WORKER>& s) {
  const int lane = threadIdx.x % WARP;
  const int warp = threadIdx.x / WARP;
  const bool is_worker = warp < WORKER_WARPS;
  unsigned kept[PER_WORKER];
#pragma unroll
  for (int q = 0; q < PER_WORKER; q++) {
    kept[q] = __ballot_sync(FULL_WARP, is_kept[q]);
    if (is_worker && lane == 0) s.num_kept[q * WORKER_WARPS + warp] = __popc(kept[q]);
  }
  Threads::sync();
  int total = 0;
#pragma unroll
  for (int q = 0; q < PER_WORKER; q++) {
#pragma unroll
    for (int w = 0; w < WORKER_WARPS; w++) {
      if (w == warp) place[q] = total + __popc(kept[q] & ((1u << lane) - 1));
      total += s.num_kept[q * WORKER_WARPS + w];
    }
  }
#pragma unroll
  for (int q = 0; q < PER_WORKER; q++) {
    if (!is_worker || !is_kept[q]) continue;
    s.kept[place[q]] = weight[q];
    s.ids[place[q]] = static_cast<short>(q * NUM_WORKERS + threadIdx.x);
  }
  Threads::sync();
  return total;
}

/// Applies top-k and top-p to `is_kept`, and sorts what may be kept. A weight that all lighter ones together cannot lift over top-p's remainder is left
/// out before: the heavier ones reach the target without it.
template <typename Threads, int PER_WORKER>
__device__ void filter(const PatchRow& row, int V, const double (&weight)[PER_WORKER], bool (&is_kept)[PER_WORKER], Scratch<PER_WORKER>& s) {
  const int tid = threadIdx.x;
  const bool is_worker = tid < NUM_WORKERS;
  const int limit = row.top_k == 0 ? V : min(row.top_k, V);
  const bool has_top_k = limit < V;
  const bool has_top_p = row.top_p < 1;
  if (has_top_p && !has_top_k) {
    double sum = 0;
#pragma unroll
    for (int q = 0; q < PER_WORKER; q++) sum += weight[q];
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance >>= 1) sum += __shfl_xor_sync(FULL_WARP, sum, distance);
    if (is_worker && tid % WARP == 0) s.sum[tid / WARP] = sum;
    Threads::sync();
    sum = 0;
#pragma unroll
    for (int w = 0; w < WORKER_WARPS; w++) sum += s.sum[w];
    // The margin covers the roundings of all sums.
    const double least = (1 - row.top_p - 1e-12) * sum / V * 0.999;
#pragma unroll
    for (int q = 0; q < PER_WORKER; q++) is_kept[q] = is_kept[q] && !(weight[q] < least);
  }
  int place[PER_WORKER];
  int count = list_kept<Threads>(is_kept, weight, place, s);
  int rank[PER_WORKER];
  if (is_worker) {
#pragma unroll
    for (int q = 0; q < PER_WORKER; q++) {
      rank[q] = count;
      if (!is_kept[q]) continue;
      // Weights are not negative: their bits order as they do. An equal one of a lower id counts as heavier.
      const long long own = __double_as_longlong(weight[q]);
      rank[q] = 0;
#pragma unroll 4
      for (int other = 0; other < count; other++) rank[q] += __double_as_longlong(s.kept[other]) + (other < place[q]) > own;
      s.sorted[rank[q]] = weight[q];
    }
  } else if (has_top_p && !has_top_k && tid == NUM_WORKERS) {
    s.total = sum_in_order(s.weights, V);
  }
  Threads::sync();
  if (has_top_k) {
#pragma unroll
    for (int q = 0; q < PER_WORKER; q++) is_kept[q] = is_kept[q] && rank[q] < limit;
    if (!has_top_p) return;
    count = list_kept<Threads>(is_kept, weight, place, s);
    if (tid == 0) s.total = sum_in_order(s.kept, count);
  }
  if (tid == 0) s.num_reached = count_until(s.sorted, min(limit, count), __dmul_rn(row.top_p, s.total));
  Threads::sync();
#pragma unroll
  for (int q = 0; q < PER_WORKER; q++) is_kept[q] = is_kept[q] && rank[q] < s.num_reached;
}

/// Keeps the weights that pass the filters and inverts their cumulated sum. All threads take part; the id is right in thread 0.
template <typename Threads, int PER_WORKER>
__device__ int draw(const PatchRow& row, int V, const double (&weight)[PER_WORKER], double uniform, Scratch<PER_WORKER>& s) {
  bool is_kept[PER_WORKER];
#pragma unroll
  for (int q = 0; q < PER_WORKER; q++) is_kept[q] = weight[q] > 0;
  if ((row.top_k > 0 && row.top_k < V) || row.top_p < 1) filter<Threads>(row, V, weight, is_kept, s);
  if (row.min_p > 0) {  // times the heaviest weight, exp(0) = 1
#pragma unroll
    for (int q = 0; q < PER_WORKER; q++) is_kept[q] = is_kept[q] && !(weight[q] < row.min_p);
  }
  int place[PER_WORKER];
  const int count = list_kept<Threads>(is_kept, weight, place, s);
  if (threadIdx.x >= WARP) return 0;
  const int lane = threadIdx.x;
  double target = 0;
  if (lane == 0) target = __dmul_rn(uniform, run_sums(s.kept, count));
  target = __shfl_sync(FULL_WARP, target, 0);
  __syncwarp();
  for (int first = 0; first < count; first += WARP) {
    const unsigned above = __ballot_sync(FULL_WARP, first + lane < count && s.kept[first + lane] > target);
    if (above != 0) return s.ids[first + __ffs(above) - 1];
  }
  return s.ids[count - 1];  // rounding left the sum at the target
}

/// Bits that order as the scores do; 0 is below all of them. Both zeros are one.
__device__ inline uint64_t order_key(double score) {
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(score + 0.0));
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

__device__ inline double score_of_key(uint64_t key) { return __longlong_as_double(static_cast<long long>(key >> 63 ? key & ~(1ull << 63) : ~key)); }

/// Replaces key and id by the highest key of the warp and the lowest id that has it.
__device__ inline void find_best(uint64_t& key, int& id) {
  const unsigned high = __reduce_max_sync(FULL_WARP, static_cast<unsigned>(key >> 32));
  const unsigned low = __reduce_max_sync(FULL_WARP, static_cast<unsigned>(key >> 32) == high ? static_cast<unsigned>(key) : 0u);
  const uint64_t best = static_cast<uint64_t>(high) << 32 | low;
  id = static_cast<int>(__reduce_min_sync(FULL_WARP, key == best ? static_cast<unsigned>(id) : 0x7fffffffu));
  key = best;
}

/// Brings what `sample_row` will read of memory near, while the logits are waited for.
__device__ inline void touch_row(const Sample& a, int64_t b, int step) {
  const auto touch = [](const void* address) {
    uint32_t value;
    asm volatile("ld.global.u8 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
  };
  const PatchRow& row = a.rows[b];
  if (threadIdx.x == 0) {
    touch(a.cursor + b);
    touch(a.forced + b * a.P + step);
    touch(a.ids_out + b * a.P + step);
  }
  const uint32_t flags = row.flags;
  for (int64_t id = threadIdx.x; id < a.V; id += SAMPLE_THREADS) {
    const int64_t entry = row.slot * a.V + id;
    touch(a.id_flags + entry);
    if (flags & ROW_BIAS) touch(a.bias + entry);
    if (flags & ROW_OCCURRENCE) touch(a.counts + entry);
  }
}

/// Chooses the id of row `b` after output `step`, with threads 0 to SAMPLE_THREADS - 1; `Threads::sync()` is a barrier of theirs. Thread 0
/// calls `tell` with the id as the next byte's input as soon as it is known, and then writes the tables.
template <typename Threads, int PER_WORKER, typename Tell>
__device__ void sample_row(const Sample& a, const float* logits, int64_t b, int step, Scratch<PER_WORKER>& s, Tell&& tell) {
  const int tid = threadIdx.x;
  const bool is_worker = tid < NUM_WORKERS;
  const int V = static_cast<int>(a.V);
  const PatchRow& row = a.rows[b];
  const uint32_t flags = row.flags;
  int32_t* ids_out = a.ids_out + b * a.P;
  if ((flags & ROW_LOGITS) && is_worker) {
    for (int id = tid; id < V; id += NUM_WORKERS) a.logits_out[(b * a.P + step) * V + id] = logits[id];
  }
  const int num_sampled = step - row.num_forced;
  const int earlier = num_sampled > 0 ? ids_out[step - 1] : 0;
  if (num_sampled < 0 || earlier < 0) {
    if (tid > 0) return;
    const int id = num_sampled < 0 ? a.forced[b * a.P + step] : earlier;
    tell(max(id, 0));
    ids_out[step] = id;
    return;
  }
  const Turn turn{num_sampled, num_sampled == 0 ? row.automaton_state : a.cursor[b]};

  constexpr int HAS_ALLOWED = 1, HAS_NAN = 2;
  double score[PER_WORKER];
  uint64_t key = 0;
  int id = 0;
  int found = 0;
#pragma unroll
  for (int q = 0; q < PER_WORKER; q++) {
    const int own = q * NUM_WORKERS + tid;
    score[q] = -INFINITY;
    if (!is_worker || own >= V || !is_allowed(a, row, turn, own)) continue;
    score[q] = adjusted_score(a, row, logits, own);
    found |= isnan(score[q]) ? HAS_ALLOWED | HAS_NAN : HAS_ALLOWED;
    const uint64_t own_key = order_key(score[q]);
    if (own_key > key) {
      key = own_key;
      id = own;
    }
  }
  found = static_cast<int>(__reduce_or_sync(FULL_WARP, static_cast<unsigned>(found)));
  find_best(key, id);
  if (is_worker && tid % WARP == 0) {
    s.best_key[tid / WARP] = key;
    s.best_id[tid / WARP] = id;
    s.flags[tid / WARP] = found;
  }
  Threads::sync();
  key = 0;
  found = 0;
#pragma unroll
  for (int w = 0; w < WORKER_WARPS; w++) {
    found |= s.flags[w];
    const bool is_better = s.best_key[w] > key || (s.best_key[w] == key && s.best_id[w] < id);
    key = is_better ? s.best_key[w] : key;
    id = is_better ? s.best_id[w] : id;
  }
  const double best = score_of_key(key);
  if (!(found & HAS_ALLOWED)) {
    id = ID_NONE_ALLOWED;
  } else if ((found & HAS_NAN) || !isfinite(best)) {
    id = ID_NOT_FINITE;
  } else if (row.temperature != 0) {
    double weight[PER_WORKER];
#pragma unroll
    for (int q = 0; q < PER_WORKER; q++) {
      weight[q] = 0;
      if (!is_worker || q * NUM_WORKERS + tid >= V) continue;
      weight[q] = exp(__ddiv_rn(__dsub_rn(score[q], best), row.temperature));
      s.weights[q * NUM_WORKERS + tid] = weight[q];
    }
    const uint64_t index = (static_cast<uint64_t>(row.index_high) << 32 | row.index_low) + num_sampled;
    const double uniform = uniform_at(row.seed_low, row.seed_high, index);
    id = draw<Threads>(row, V, weight, uniform, s);
  }
  if (tid > 0) return;
  tell(max(id, 0));
  ids_out[step] = id;
  a.cursor[b] = turn.state;
  if (id < 0) return;
  const int64_t entry = row.slot * a.V + id;
  a.counts[entry]++;
  a.id_flags[entry] |= ID_SEEN;
  if (flags & ROW_CONSTRAINT) {
    const int following = Automaton(row).after(turn.state, id);
    if (following != NO_STATE) a.cursor[b] = following;
  }
}

}  // namespace mblm::cuda
