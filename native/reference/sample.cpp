// The choice of the next id, in float64: the rule of src/sampling and src/engine/constraint-cursor.ts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "automaton.h"
#include "philox.h"

namespace mblm {
using namespace reference;

namespace {

constexpr double INFINITE = std::numeric_limits<double>::infinity();
using Doubles = std::vector<double>;

/// One row's part of the arguments.
struct RowTables {
  const PatchRow& row;
  int64_t V;
  const float* logits;   // [V]
  const double* bias;    // [V]
  int32_t* counts;       // [V]
  uint8_t* id_flags;     // [V]
  int32_t* cursor;
  int32_t num_sampled;   // earlier ids of this patch that were sampled

  bool has(uint32_t flag) const { return (row.flags & flag) != 0; }
  bool must_go_on() const { return num_sampled < row.num_unended; }
};

/// score-adjustments.ts: bias, repetition, presence and frequency.
void adjust(Doubles& scores, const RowTables& t) {
  if (t.has(ROW_BIAS)) {
    for (int64_t id = 0; id < t.V; id++) scores[id] += t.bias[id];
  }
  if (t.has(ROW_REPETITION)) {
    for (int64_t id = 0; id < t.V; id++) {
      if ((t.id_flags[id] & ID_SEEN) == 0) continue;
      scores[id] = scores[id] > 0 ? scores[id] / t.row.repetition : scores[id] * t.row.repetition;
    }
  }
  if (t.has(ROW_OCCURRENCE)) {
    for (int64_t id = 0; id < t.V; id++) {
      if (t.counts[id] > 0) scores[id] -= t.row.presence + t.row.frequency * t.counts[id];
    }
  }
}

/// constraint-cursor.ts, `apply`: whether the automaton lets the id come next.
bool fits_constraint(int64_t id, const RowTables& t) {
  const Automaton automaton(t.row);
  const bool may_end_here = automaton.accepting[*t.cursor] == 1 && !t.must_go_on();
  if (may_end_here && (t.id_flags[id] & ID_END) != 0) return true;
  const int32_t next = automaton.next_state(*t.cursor, id);
  if (next == Automaton::NO_STATE) return may_end_here && t.has(ROW_CAN_END);
  const int64_t num_left = int64_t(t.row.num_left) - t.num_sampled;
  return int64_t(automaton.distance[next]) <= num_left - 1;
}

bool is_banned(int64_t id, const RowTables& t) {
  if (t.has(ROW_DISALLOWED) && (t.id_flags[id] & ID_DISALLOWED) != 0) return true;
  if (t.must_go_on() && (t.id_flags[id] & ID_END) != 0) return true;
  return t.has(ROW_CONSTRAINT) && !fits_constraint(id, t);
}

/// The id with the highest score, the lowest such id on a tie; ID_NOT_FINITE when there is none or a score is NaN.
int32_t highest(const Doubles& scores) {
  size_t best = 0;
  bool has_nan = false;
  for (size_t id = 0; id < scores.size(); id++) {
    if (scores[id] > scores[best]) best = id;
    has_nan = has_nan || std::isnan(scores[id]);
  }
  return has_nan || !std::isfinite(scores[best]) ? ID_NOT_FINITE : int32_t(best);
}

double sum(const Doubles& weights) { return std::accumulate(weights.begin(), weights.end(), 0.0); }

/// Zeroes the weight of every id but the heaviest (of equal ones the lower), of which it keeps at most `k` and stops once they reach `target`.
void keep_heaviest(Doubles& weights, int64_t k, double target) {
  std::vector<int32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return weights[a] > weights[b]; });
  double reached = 0;
  int64_t kept = 0;
  while (kept < k && reached < target) reached += weights[order[kept++]];
  for (size_t i = kept; i < order.size(); i++) weights[order[i]] = 0;
}

/// Top-k, top-p, min-p.
void filter(Doubles& weights, const PatchRow& row, int32_t best) {
  const int64_t V = int64_t(weights.size());
  const int64_t k = row.top_k == 0 ? V : std::min<int64_t>(row.top_k, V);
  if (k < V) keep_heaviest(weights, k, INFINITE);
  if (row.top_p < 1) keep_heaviest(weights, k, row.top_p * sum(weights));
  if (row.min_p == 0) return;
  const double threshold = row.min_p * weights[best];
  for (double& weight : weights) {
    if (weight < threshold) weight = 0;
  }
}

/// The first id whose cumulated weight exceeds the uniform's share of the sum.
int32_t invert(const Doubles& weights, double uniform) {
  const double target = uniform * sum(weights);
  double cumulated = 0;
  int32_t last = 0;
  for (size_t id = 0; id < weights.size(); id++) {
    if (weights[id] == 0) continue;
    cumulated += weights[id];
    last = int32_t(id);
    if (cumulated > target) return last;
  }
  return last;  // rounding left the sum at the target
}

int32_t choose(const RowTables& t) {
  const PatchRow& row = t.row;
  Doubles scores(t.logits, t.logits + t.V);
  adjust(scores, t);
  int64_t num_allowed = 0;
  for (int64_t id = 0; id < t.V; id++) {
    if (is_banned(id, t)) {
      scores[id] = -INFINITE;
    } else {
      num_allowed++;
    }
  }
  if (num_allowed == 0) return ID_NONE_ALLOWED;
  const int32_t best = highest(scores);
  if (best < 0 || row.temperature == 0) return best;

  Doubles weights(t.V);
  for (int64_t id = 0; id < t.V; id++) weights[id] = std::exp((scores[id] - scores[best]) / row.temperature);
  filter(weights, row, best);
  const uint64_t index = (uint64_t(row.index_high) << 32 | row.index_low) + uint64_t(t.num_sampled);
  return invert(weights, uniform_at(row.seed_low, row.seed_high, index));
}

/// Notes the id in the tables: counts, ids seen, the automaton's state.
void record(const RowTables& t, int32_t id) {
  t.counts[id]++;
  t.id_flags[id] |= ID_SEEN;
  if (!t.has(ROW_CONSTRAINT)) return;
  const int32_t next = Automaton(t.row).next_state(*t.cursor, id);
  if (next != Automaton::NO_STATE) *t.cursor = next;
}

}  // namespace

void sample(const Sample& a, Stream) {
  for (int64_t b = 0; b < a.B; b++) {
    const PatchRow& row = a.rows[b];
    const float* logits = a.logits + b * a.V;
    int32_t* ids = a.ids_out + b * a.P;
    if ((row.flags & ROW_LOGITS) != 0) std::copy_n(logits, a.V, a.logits_out + (b * a.P + a.step) * a.V);

    int32_t id;
    if (a.step > 0 && ids[a.step - 1] < 0) {
      id = ids[a.step - 1];
    } else if (a.step < row.num_forced) {
      id = a.forced[b * a.P + a.step];
    } else {
      if (a.step == row.num_forced) a.cursor[b] = row.automaton_state;
      const int64_t table = int64_t(row.slot) * a.V;
      const RowTables tables{row,
                             a.V,
                             logits,
                             a.bias + table,
                             a.counts + table,
                             a.id_flags + table,
                             a.cursor + b,
                             int32_t(a.step - row.num_forced)};
      id = choose(tables);
      if (id >= 0) record(tables, id);
    }
    ids[a.step] = id;
    a.next[b] = std::max(id, 0);
  }
}

}  // namespace mblm
