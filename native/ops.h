// The operators of the domain "mblm": what a device needs beside ONNX's own to run a stage with few kernels.
//
// One struct of arguments per operator and one function that carries it out. `reference/` implements all of them on the CPU, slowly and
// readably; `cuda/` implements them as CUDA kernels, one launch each (two where said). `onnx/` turns either into a library of ONNX Runtime
// custom operators. The reference defines the result.
//
// Shapes: M = R·T rows of activations, row m = r·T + t; R sequences, T steps of each; K, N widths; V ids; S slots of state; C rows of context.
// Activations and weights of products have the work type T (`DType`); the residual stream `x`, norms, recurrent states and logits are float32.
// "in place": an input tensor that the operator also writes; nothing else of the graph reads it.
// Sums are accumulated in float32, in an order that does not depend on R, T or on other rows, unless said otherwise.
#pragma once
#include <cstdint>

namespace mblm {

/// ONNX's numbers of element types.
enum class DType : int32_t { f32 = 1, f16 = 10, bf16 = 16 };

/// A CUDA stream (cudaStream_t); null and unused by the reference.
using Stream = void*;

/// How a vector is normalised before its gain: `clamp`: x / max(‖x‖·K^-½, 1e-8) (megabyte-pytorch); `epsilon`: x / sqrt(mean x² + 1e-5) (mamba).
enum class Norm : int32_t { clamp = 0, epsilon = 1 };

/// EmbedPatch_T: the bytes of each patch, embedded, concatenated, layer-normalised (epsilon 1e-5).
struct EmbedPatch {
  DType type;
  int64_t M, S, D, V;     // S here: bytes per patch
  const int32_t* ids;     // [M, S]
  const void* table;      // T [V, D]
  const float* gain;      // [S·D]
  const float* beta;      // [S·D]
  void* y;                // T [M, S·D]
};

/// StageInput_T: LayerNorm(e + bias)·gain + beta, then the position embedding, then the parent's context. Position of row m: position[r] + t.
struct StageInput {
  DType type;
  int64_t M, R, D;
  int64_t num_positions;    // rows of pos_table; 0 without one
  int64_t children;         // P of this stage: context vectors per context row
  bool rope;                // instead of a table: interleaved-pair rotation over the full width, base 10 000
  const void* e;            // T [M, D]
  const float* bias;        // [D]
  const float* gain;        // [D]
  const float* beta;        // [D]
  const int32_t* position;  // [R]
  const int32_t* slot;      // [R]
  const float* pos_table;   // [num_positions, D] or null
  const void* contexts;     // T [C, children·D], row slot[r], vector position + t; or null (stage 0)
  float* x;                 // [M, D]
};

/// LocalInput_T: embedding of one byte of each row + position embedding + context vector `position`.
struct LocalInput {
  DType type;
  int64_t B, D, V, children;
  int64_t position;         // attribute: 0 … children − 1
  bool rope;                // attribute, as StageInput
  const int32_t* ids;       // [B]
  const int32_t* slot;      // [B] context row
  const void* table;        // T [V, D]
  const void* contexts;     // T [C, children·D]
  const float* pos_table;   // [children, D] or null
  float* x;                 // [B, D]
};

/// NormLinear_T (M ≤ 8): y = act(norm(shift(x))·gain · Wᵀ + bias). With `prev`, the second half of the channels of x is taken from it (token shift).
struct NormLinear {
  DType type;
  int64_t M, K, N;
  Norm norm;                // attribute norm
  bool gelu;                // attribute: exact GELU (erf) of the result
  const float* x;           // [M, K]
  const float* gain;        // [K]
  const void* w;            // T [N, K]
  const float* bias;        // [N] or null
  const float* prev;        // [prev_rows, K] or null
  int64_t prev_rows;        // M, or 1: the same row for all
  void* y;                  // T [M, N]
};

/// Linear_T (M ≤ 8): y = act(x · Wᵀ + bias).
struct Linear {
  DType type;
  int64_t M, K, N;
  bool gelu;
  const void* x;            // T [M, K]
  const void* w;            // T [N, K]
  const float* bias;        // [N] or null
  void* y;                  // T [M, N]
};

/// LinearAdd_T (M ≤ 8): y = residual + x · Wᵀ + bias.
struct LinearAdd {
  DType type;
  int64_t M, K, N;
  const void* x;            // T [M, K]
  const void* w;            // T [N, K]
  const float* residual;    // [M, N]
  const float* bias;        // [N] or null
  float* y;                 // [M, N]
};

/// AddNorm_T: sum = x + delta + bias; h = norm(shift(sum, prev))·gain. Any M.
struct AddNorm {
  DType type;
  int64_t M, K;
  Norm norm;
  const float* x;           // [M, K]
  const float* gain;        // [K]
  const void* delta;        // T [M, K] or null
  const float* bias;        // [K] or null
  const float* prev;        // [prev_rows, K] or null: no shift
  int64_t prev_rows;        // M or 1
  float* sum;               // [M, K]
  void* h;                  // T [M, K]
};

/// ShiftNorm_T: as AddNorm (norm clamp), with the previous row of the same sequence: row t − 1; for t = 0 `initial` at position 0, else the slot's
/// state. Afterwards state[slot[r]] = sum of the last step. Two launches when T > 1.
struct ShiftNorm {
  DType type;
  int64_t M, R, K;
  const float* x;           // [M, K]
  const float* gain;        // [K]
  float* state;             // [S, K] in place
  const float* initial;     // [K]
  const int32_t* slot;      // [R]
  const int32_t* position;  // [R]
  const void* delta;        // T [M, K] or null
  const float* bias;        // [K] or null
  float* sum;               // [M, K]
  void* h;                  // T [M, K]
};

/// BiasGelu_T: gelu(x + bias), exact.
struct BiasGelu {
  DType type;
  int64_t M, N;
  const void* x;            // T [M, N]
  const float* bias;        // [N]
  void* y;                  // T [M, N]
};

constexpr int MAX_PATCH = 32;

/// PatchAttention_T: attention of the byte at local position `count` (1 …) over the start token (position 0) and bytes 1 … count of the patch.
/// qkv rows: q [H·d], k [H·d], v [H·d], not rotated yet. Rotary (rotate-half: pairs i, i + d/2) by rows 1 … count of cos, sin; scale d^-½.
struct PatchAttention {
  DType type;
  int64_t B, H, d;
  int64_t count;            // number of qkv inputs, ≤ MAX_PATCH
  const void* start_k;      // T [H, d], position 0 (rotation there is the identity)
  const void* start_v;      // T [H, d]
  const float* cos;         // [≥ count + 1, d/2]; all ones without rotary
  const float* sin;         // [≥ count + 1, d/2]; all zeros without rotary
  const void* qkv[MAX_PATCH];  // T [B, 3·H·d] each; the last is the byte's own
  void* y;                  // T [B, H·d]
};

/// CachedAttention_T: causal attention of T new steps of each sequence over the start token and all its steps. Step p (0-based, p = position[r] + t)
/// has rotary row p + 1 and cache row p, written by this operator (k after rotation).
struct CachedAttention {
  DType type;
  int64_t M, R, H, d, capacity;
  const void* qkv;          // T [M, 3·H·d], as above
  void* k_cache;            // T [S, H, capacity, d] in place
  void* v_cache;            // T [S, H, capacity, d] in place
  const void* start_k;      // T [H, d]
  const void* start_v;      // T [H, d]
  const float* cos;         // [capacity + 1, d/2]
  const float* sin;         // [capacity + 1, d/2]
  const int32_t* slot;      // [R]
  const int32_t* position;  // [R]
  void* y;                  // T [M, H·d]
};

/// CausalConv_T: depthwise causal convolution over T, bias, SiLU, of columns offset … offset + channels − 1 of `u`. Taps oldest first, as in the
/// state dict's conv1d.weight. The state before position 0 is `initial`.
struct CausalConv {
  DType type;
  int64_t M, R, W, channels, taps, offset;
  const void* u;            // T [M, W]
  const float* w;           // [channels, taps]
  const float* b;           // [channels]
  float* state;             // [S, taps − 1, channels] in place, oldest first
  const float* initial;     // [taps − 1, channels]
  const int32_t* slot;      // [R]
  const int32_t* position;  // [R]
  float* y;                 // [M, channels]
};

/// SsmScan_T (Mamba-2): dt = softplus(u[:, dt_offset + h] + dt_bias[h]); state ← exp(dt·a[h])·state + dt·x⊗B; y = state·C + d[h]·x.
/// xbc columns: x [H·P], B [N], C [N].
struct SsmScan {
  DType type;
  int64_t M, R, W, H, P, N, dt_offset;
  const float* xbc;         // [M, H·P + 2N]
  const void* u;            // T [M, W]
  const float* dt_bias;     // [H]
  const float* a;           // [H], negative
  const float* d;           // [H]
  float* state;             // [S, H, N, P] in place
  const float* initial;     // [H, N, P]; the state before position 0
  const int32_t* slot;      // [R]
  const int32_t* position;  // [R]
  float* y;                 // [M, H·P]
};

/// GatedNorm_T: v = y·silu(u[:, 0 … D − 1]); v / sqrt(mean v² + 1e-5) · gain.
struct GatedNorm {
  DType type;
  int64_t M, W, D;
  const float* y;           // [M, D]
  const void* u;            // T [M, W]
  const float* gain;        // [D]
  void* h;                  // T [M, D]
};

/// StoreRows_T: dst[row[m]] = src[m].
struct StoreRows {
  DType type;
  int64_t M, W;
  const void* src;          // T [M, W]
  void* dst;                // T [C, W] in place
  const int32_t* row;       // [M]
  int32_t* done;            // [1] set to 1: gives the graph something to return
};

/// What the host says of a row for one patch. 32 words.
struct alignas(8) PatchRow {
  int32_t slot;             // of the state and of the tables below; the context row, too
  int32_t first;            // byte 0 of the patch
  int32_t num_forced;       // the first so many outputs are `forced`
  uint32_t flags;           // ROW_…
  int32_t top_k;            // 0 = all
  int32_t num_left;         // ids that may still be generated, before the first sampled output of this patch
  int32_t num_unended;      // sampled outputs of this patch, from the first, during which end ids are banned
  int32_t automaton_state;
  uint32_t seed_low, seed_high;
  uint32_t index_low, index_high;  // ids generated before this patch: number of the next uniform
  uint64_t automaton;       // address of the automaton's tables, on the device
  int32_t automaton_classes, automaton_states;
  double temperature;       // 0 = greedy
  double top_p, min_p, repetition, presence, frequency;
  int32_t reserved[4];
};
static_assert(sizeof(PatchRow) == 128, "the host writes 32 words");

enum : uint32_t {
  ROW_BIAS = 1,         // add bias[slot]
  ROW_OCCURRENCE = 2,   // presence and frequency penalties by counts[slot]
  ROW_REPETITION = 4,   // by ID_SEEN
  ROW_DISALLOWED = 8,   // ban ID_DISALLOWED
  ROW_CONSTRAINT = 16,  // follow the automaton
  ROW_CAN_END = 32,     // an id that fits no match may end a whole match
  ROW_LOGITS = 64,      // keep the logits
};
enum : uint8_t { ID_SEEN = 1, ID_DISALLOWED = 2, ID_END = 4 };

/// Results in place of an id. None allowed: all ids are banned, which is seen first. Not finite: the score of an allowed id is NaN, or the highest
/// score is not finite.
/// Failed: LocalPatch gave up waiting for a part of itself; nothing of the patch is to be used.
constexpr int32_t ID_NOT_FINITE = -1, ID_NONE_ALLOWED = -2, ID_FAILED = -3;

/// An automaton's tables at `PatchRow::automaton`: distance uint32 [states], next uint16 [states · classes], classes uint8 [256],
/// accepting uint8 [states]; 65535 in `next` = no state. See src/core/byte-automaton.ts.

/// Sample: the next id of every row after output `step` of the patch: the rule of src/sampling/sampler.ts, score-adjustments.ts, uniform-source.ts and
/// src/engine/constraint-cursor.ts, in float64, sums in ascending order of ids. Outputs below num_forced are forced[b][step] and change no table.
/// A sampled id is counted: counts, ID_SEEN, the automaton's cursor.
/// When an earlier output of this patch was negative, so is this one (and the embedding reads id 0).
struct Sample {
  int64_t B, V, P;
  int64_t step;             // attribute: 0 … P − 1
  const float* logits;      // [B, V]
  const PatchRow* rows;     // [B] (int32 [B, 32])
  const int32_t* forced;    // [B, P]
  const double* bias;       // [S, V]
  int32_t* counts;          // [S, V] in place
  uint8_t* id_flags;        // [S, V] in place
  int32_t* cursor;          // [B] in place: the automaton's state between the steps of a patch; set from the row at the first sampled output
  int32_t* ids_out;         // [B, P] in place
  float* logits_out;        // [B, P, V] in place; rows with ROW_LOGITS only
  int32_t* next;            // [B] the id as the next LocalInput needs it: ≥ 0
};

constexpr int MAX_LOCAL_LAYERS = 32;
constexpr int MAX_LOCAL_MATRICES = 128;  // four of a layer

/// LocalPatch_T (B ≤ 8): a whole patch of a local stage of transformer layers, in one launch: for each of its positions j = 0 … P − 1
///   x = LocalInput(previous id; `first` at j = 0) at position j;
///   for each layer: x += Linear(PatchAttention(NormLinear(x, g_attn, w_qkv; prev))) with w_out; x += Linear(gelu NormLinear(x, g_ff, w_1, b_1; prev)) with
///   w_2, b_2; `prev` is the x that entered the same product at position j − 1, at j = 0 the layer's row of `vectors`; norms are `clamp`;
///   logits = NormLinear_f32(x, gain, head, head_bias); Sample at step j.
/// Its products may be summed in another order than those operators' and its activations kept in more bits; a row's bits depend on B no more than theirs.
struct LocalPatch {
  DType type;
  int64_t B, P, D, V, H, d, F, L, children;
  int64_t scratch_bytes;
  const int32_t* first;     // [B]
  const int32_t* slot;      // [B] context row
  const void* table;        // T [V, D]
  const void* contexts;     // T [C, children·D]
  const float* pos_table;   // [children, D] or null
  const float* vectors;     // [L, 5·D + F]: g_attn, prev_attn, g_ff, prev_ff, b_2 of D, b_1 of F
  const void* starts;       // T [L, 2, H, d]: the start token's key and value
  const float* cos;         // [≥ P + 1, d/2]
  const float* sin;         // [≥ P + 1, d/2]
  const float* gain;        // [D]
  const float* head;        // [V, D]
  const float* head_bias;   // [V]
  const PatchRow* rows;     // this and the following as Sample has them
  const int32_t* forced;
  const double* bias;
  int32_t* counts;
  uint8_t* id_flags;
  int32_t* cursor;
  int32_t* ids_out;
  float* logits_out;
  uint8_t* scratch;         // [scratch_bytes] in place: zeros at first, of this call alone (same B); see local_patch_scratch_bytes
  const void* matrices[MAX_LOCAL_MATRICES];  // T, layer by layer: w_qkv [3·H·d, D], w_out [D, H·d], w_1 [F, D], w_2 [D, F]
  int32_t* done;            // [B] ids_out's last
};

/// Bytes of `scratch` that a call needs at most.
inline int64_t local_patch_scratch_bytes(const LocalPatch& a) {
  const int64_t positions = (a.P <= 8 ? 8 : MAX_PATCH) + 1;
  const int64_t blocks = a.D / 8;
  const int64_t exchanged = 8 + 8 * a.V + 16 * positions * blocks + 16 * (a.D + a.F + a.D * (2 * a.L + 1));
  return 4096 + a.B * (exchanged + 48 * blocks * a.L * positions);
}

constexpr int MAX_MAMBA_LAYERS = 32;

/// MambaStep_T (B ≤ 8): one step of B sequences through all layers of a Mamba-2 stage, in one launch: for each layer
///   u = NormLinear(x, gain, in_proj), norm `epsilon`; xbc = CausalConv(u) at offset H·P; y = SsmScan(xbc, u) at dt_offset H·P + C;
///   x = LinearAdd(GatedNorm(y, u), out_proj, x).
/// Its products may be summed in another order than those operators' and its activations kept in more bits; a row's bits depend on B no more than theirs.
/// Where it gives up waiting for a part of itself, the second word of `scratch` is not 0 any more, y is NaN, and states are not to be used.
struct MambaStep {
  DType type;
  int64_t B, D, W, H, P, N, C, taps, L;  // C = H·P + 2·N channels of the convolution
  int64_t scratch_bytes;
  const float* x;           // [B, D]
  const int32_t* slot;      // [B]
  const int32_t* position;  // [B]
  const float* vectors;     // [L, D + (taps + 1)·C + 3·H + H·P]: norm gain, convolution [C, taps] and its bias, dt_bias, a, d, gated norm's gain
  uint8_t* scratch;         // [scratch_bytes] in place: zeros at first, of this call alone (same B); see mamba_step_scratch_bytes
  const void* in_proj[MAX_MAMBA_LAYERS];          // T [W, D]
  const void* out_proj[MAX_MAMBA_LAYERS];         // T [D, H·P]
  float* conv_state[MAX_MAMBA_LAYERS];            // [S, taps − 1, C] in place, as CausalConv's
  const float* conv_initial[MAX_MAMBA_LAYERS];    // [taps − 1, C]
  float* ssm_state[MAX_MAMBA_LAYERS];             // [S, H, N, P] in place, as SsmScan's
  const float* ssm_initial[MAX_MAMBA_LAYERS];     // [H, N, P]
  float* y;                 // [B, D]
};

/// Bytes of `scratch` that a call needs at most.
inline int64_t mamba_step_scratch_bytes(const MambaStep& a) { return 4096 + a.B * (16 * a.D + 64 * a.N + 12 * a.H * a.P); }

void embed_patch(const EmbedPatch&, Stream);
void stage_input(const StageInput&, Stream);
void local_input(const LocalInput&, Stream);
void norm_linear(const NormLinear&, Stream);
void linear(const Linear&, Stream);
void linear_add(const LinearAdd&, Stream);
void add_norm(const AddNorm&, Stream);
void shift_norm(const ShiftNorm&, Stream);
void bias_gelu(const BiasGelu&, Stream);
void patch_attention(const PatchAttention&, Stream);
void cached_attention(const CachedAttention&, Stream);
void causal_conv(const CausalConv&, Stream);
void ssm_scan(const SsmScan&, Stream);
void gated_norm(const GatedNorm&, Stream);
void store_rows(const StoreRows&, Stream);
void sample(const Sample&, Stream);
void local_patch(const LocalPatch&, Stream);
void mamba_step(const MambaStep&, Stream);

/// What went wrong first on this thread since the last call, or null: a kernel that could not be launched. The reference never fails.
const char* take_error();

}  // namespace mblm
