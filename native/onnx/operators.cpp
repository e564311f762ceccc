// The operators' ports, and how each call fills the operator's struct.
#include "call.h"

namespace mblm::onnx {

namespace {

constexpr auto optional = Characteristic::optional;
constexpr auto variadic = Characteristic::variadic;
constexpr auto work = Element::work;
constexpr auto f32 = Element::f32;
constexpr auto f64 = Element::f64;
constexpr auto i32 = Element::i32;
constexpr auto u8 = Element::u8;
constexpr auto any = Element::any;

/// Rows that the mat-vec operators take.
constexpr int64_t MAX_ROWS = 8;

void require_few_rows(const Call& c, const char* input) { c.require(c.dim('M') <= MAX_ROWS, input, "M must be at most 8"); }

void require_prev_rows(const Call& c, const float* prev) {
  c.require(prev == nullptr || c.dim('p') == 1 || c.dim('p') == c.dim('M'), "prev", "p must be 1 or M");
}

/// The first position of each sequence is at least 0, its last below `limit`.
void require_positions(const Call& c, int64_t limit, const int32_t* position, int64_t T) {
  if (T > 0) c.require_below(limit - T + 1, "position", position, c.dim('R'));
}

void run_embed_patch(Call& c) {
  EmbedPatch a{};
  c.inputs(a.ids, a.table, a.gain, a.beta);
  a.type = c.type();
  a.M = c.dim('M'), a.S = c.dim('S'), a.D = c.dim('D'), a.V = c.dim('V');
  c.require(c.dim('K') == a.S * a.D, "gain", "K must be S·D");
  c.require_below(a.V, "ids", a.ids, a.M * a.S);
  c.outputs(a.y);
  embed_patch(a, c.stream());
}

void run_stage_input(Call& c) {
  StageInput a{};
  c.inputs(a.e, a.bias, a.gain, a.beta, a.position, a.slot, a.pos_table, a.contexts);
  a.type = c.type();
  a.M = c.dim('M'), a.R = c.dim('R'), a.D = c.dim('D'), a.num_positions = c.dim('N');
  a.rope = c.attribute(0) != 0;
  const int64_t T = c.steps();
  if (a.pos_table != nullptr) require_positions(c, a.num_positions, a.position, T);
  if (a.contexts != nullptr) {
    c.require(c.dim('W') % a.D == 0, "contexts", "W must be a multiple of D");
    a.children = c.dim('W') / a.D;
    require_positions(c, a.children, a.position, T);
    c.require_below(c.dim('C'), "slot", a.slot, a.R);
  }
  c.require(!a.rope || a.D % 2 == 0, "e", "D must be even for rope");
  c.outputs(a.x);
  stage_input(a, c.stream());
}

void run_local_input(Call& c) {
  LocalInput a{};
  c.inputs(a.ids, a.slot, a.table, a.contexts, a.pos_table);
  a.type = c.type();
  a.B = c.dim('B'), a.D = c.dim('D'), a.V = c.dim('V');
  a.rope = c.attribute(0) != 0;
  a.position = c.attribute(1);
  c.require(c.dim('W') % a.D == 0, "contexts", "W must be a multiple of D");
  a.children = c.dim('W') / a.D;
  c.require(a.position >= 0 && a.position < a.children, "contexts", "W / D must be above the attribute position");
  c.require(a.pos_table == nullptr || a.position < c.dim('N'), "pos_table", "N must be above the attribute position");
  c.require(!a.rope || a.D % 2 == 0, "table", "D must be even for rope");
  c.require_below(a.V, "ids", a.ids, a.B);
  c.require_below(c.dim('C'), "slot", a.slot, a.B);
  c.outputs(a.x);
  local_input(a, c.stream());
}

void run_norm_linear(Call& c) {
  NormLinear a{};
  c.inputs(a.x, a.gain, a.w, a.bias, a.prev);
  a.type = c.type();
  a.M = c.dim('M'), a.K = c.dim('K'), a.N = c.dim('N'), a.prev_rows = c.dim('p');
  a.norm = Norm(c.attribute(0));
  a.gelu = c.attribute(1) != 0;
  require_few_rows(c, "x");
  require_prev_rows(c, a.prev);
  c.outputs(a.y);
  norm_linear(a, c.stream());
}

void run_linear(Call& c) {
  Linear a{};
  c.inputs(a.x, a.w, a.bias);
  a.type = c.type();
  a.M = c.dim('M'), a.K = c.dim('K'), a.N = c.dim('N');
  a.gelu = c.attribute(0) != 0;
  require_few_rows(c, "x");
  c.outputs(a.y);
  linear(a, c.stream());
}

void run_linear_add(Call& c) {
  LinearAdd a{};
  c.inputs(a.x, a.w, a.residual, a.bias);
  a.type = c.type();
  a.M = c.dim('M'), a.K = c.dim('K'), a.N = c.dim('N');
  require_few_rows(c, "x");
  c.outputs(a.y);
  linear_add(a, c.stream());
}

void run_add_norm(Call& c) {
  AddNorm a{};
  c.inputs(a.x, a.gain, a.delta, a.bias, a.prev);
  a.type = c.type();
  a.M = c.dim('M'), a.K = c.dim('K'), a.prev_rows = c.dim('p');
  a.norm = Norm(c.attribute(0));
  require_prev_rows(c, a.prev);
  c.outputs(a.sum, a.h);
  add_norm(a, c.stream());
}

void run_shift_norm(Call& c) {
  ShiftNorm a{};
  c.inputs(a.x, a.gain, a.state, a.initial, a.slot, a.position, a.delta, a.bias);
  a.type = c.type();
  a.M = c.dim('M'), a.R = c.dim('R'), a.K = c.dim('K');
  c.steps();
  c.require_below(c.dim('S'), "slot", a.slot, a.R);
  c.outputs(a.sum, a.h);
  shift_norm(a, c.stream());
}

void run_bias_gelu(Call& c) {
  BiasGelu a{};
  c.inputs(a.x, a.bias);
  a.type = c.type();
  a.M = c.dim('M'), a.N = c.dim('N');
  c.outputs(a.y);
  bias_gelu(a, c.stream());
}

void run_patch_attention(Call& c) {
  PatchAttention a{};
  c.inputs(a.start_k, a.start_v, a.cos, a.sin);
  a.type = c.type();
  a.B = c.dim('B'), a.H = c.dim('H'), a.d = c.dim('d'), a.count = c.num_variadic();
  c.require(a.d % 2 == 0 && c.dim('h') == a.d / 2, "cos", "h must be d/2");
  c.require(c.dim('N') > a.count, "cos", "N must be above the number of inputs qkv");
  c.require(c.dim('W') == 3 * a.H * a.d, "qkv", "W must be 3·H·d");
  c.require(a.count <= MAX_PATCH, "qkv", "there must be at most 32");
  for (int64_t j = 0; j < a.count; j++) a.qkv[j] = c.variadic(j);
  c.set_dim('Y', a.H * a.d);
  c.outputs(a.y);
  patch_attention(a, c.stream());
}

void run_cached_attention(Call& c) {
  CachedAttention a{};
  c.inputs(a.qkv, a.k_cache, a.v_cache, a.start_k, a.start_v, a.cos, a.sin, a.slot, a.position);
  a.type = c.type();
  a.M = c.dim('M'), a.R = c.dim('R'), a.H = c.dim('H'), a.d = c.dim('d'), a.capacity = c.dim('C');
  c.require(c.dim('W') == 3 * a.H * a.d, "qkv", "W must be 3·H·d");
  c.require(a.d % 2 == 0 && c.dim('h') == a.d / 2, "cos", "h must be d/2");
  c.require(c.dim('N') > a.capacity, "cos", "N must be above C");
  c.require_below(c.dim('S'), "slot", a.slot, a.R);
  require_positions(c, a.capacity, a.position, c.steps());
  c.set_dim('Y', a.H * a.d);
  c.outputs(a.y);
  cached_attention(a, c.stream());
}

void run_causal_conv(Call& c) {
  CausalConv a{};
  c.inputs(a.u, a.w, a.b, a.state, a.initial, a.slot, a.position);
  a.type = c.type();
  a.M = c.dim('M'), a.R = c.dim('R'), a.W = c.dim('W'), a.channels = c.dim('C'), a.taps = c.dim('K');
  a.offset = c.attribute(0);
  c.steps();
  c.require(a.taps >= 2 && c.dim('t') == a.taps - 1, "state", "t must be K − 1, at least 1");
  c.require(a.offset >= 0 && a.offset + a.channels <= a.W, "u", "W must reach offset + C");
  c.require_below(c.dim('S'), "slot", a.slot, a.R);
  c.outputs(a.y);
  causal_conv(a, c.stream());
}

void run_ssm_scan(Call& c) {
  SsmScan a{};
  c.inputs(a.xbc, a.u, a.dt_bias, a.a, a.d, a.state, a.initial, a.slot, a.position);
  a.type = c.type();
  a.M = c.dim('M'), a.R = c.dim('R'), a.W = c.dim('W'), a.H = c.dim('H'), a.P = c.dim('P'), a.N = c.dim('N');
  a.dt_offset = c.attribute(0);
  c.steps();
  c.require(c.dim('K') == a.H * a.P + 2 * a.N, "xbc", "K must be H·P + 2·N");
  c.require(a.dt_offset >= 0 && a.dt_offset + a.H <= a.W, "u", "W must reach dt_offset + H");
  c.require_below(c.dim('S'), "slot", a.slot, a.R);
  c.set_dim('Y', a.H * a.P);
  c.outputs(a.y);
  ssm_scan(a, c.stream());
}

void run_gated_norm(Call& c) {
  GatedNorm a{};
  c.inputs(a.y, a.u, a.gain);
  a.type = c.type();
  a.M = c.dim('M'), a.W = c.dim('W'), a.D = c.dim('D');
  c.require(a.D <= a.W, "u", "W must be at least D");
  c.outputs(a.h);
  gated_norm(a, c.stream());
}

void run_store_rows(Call& c) {
  StoreRows a{};
  c.inputs(a.src, a.dst, a.row);
  a.type = c.type();
  a.M = c.dim('M'), a.W = c.dim('W');
  c.require_below(c.dim('C'), "row", a.row, a.M);
  c.set_dim('Y', 1);
  c.outputs(a.done);
  store_rows(a, c.stream());
}

/// `rows`: of Y words each, `PatchRow`s.
void require_patch_rows(const Call& c, const int32_t* rows) {
  c.require(c.dim('Y') == sizeof(PatchRow) / sizeof(int32_t), "rows", "Y must be 32");
  c.require(reinterpret_cast<uintptr_t>(rows) % alignof(PatchRow) == 0, "rows", "its address must be a multiple of 8");
#ifndef MBLM_CUDA
  const auto* patches = reinterpret_cast<const PatchRow*>(rows);
  for (int64_t b = 0; b < c.dim('B'); b++) c.require_below(c.dim('S'), "rows", &patches[b].slot, 1);
#endif
}

void run_sample(Call& c) {
  Sample a{};
  const int32_t* rows = nullptr;
  c.inputs(a.logits, rows, a.forced, a.bias, a.counts, a.id_flags, a.cursor, a.ids_out, a.logits_out);
  a.rows = reinterpret_cast<const PatchRow*>(rows);
  a.B = c.dim('B'), a.V = c.dim('V'), a.P = c.dim('P');
  a.step = c.attribute(0);
  require_patch_rows(c, rows);
  c.require(a.step >= 0 && a.step < a.P, "forced", "P must be above the attribute step");
  c.outputs(a.next);
  sample(a, c.stream());
}

void run_local_patch(Call& c) {
  LocalPatch a{};
  const int32_t* rows = nullptr;
  c.inputs(a.first, a.slot, a.table, a.contexts, a.pos_table, a.vectors, a.starts, a.cos, a.sin, a.gain, a.head, a.head_bias, rows, a.forced, a.bias,
           a.counts, a.id_flags, a.cursor, a.ids_out, a.logits_out, a.scratch);
  a.rows = reinterpret_cast<const PatchRow*>(rows);
  a.type = c.type();
  a.B = c.dim('B'), a.P = c.dim('P'), a.D = c.dim('D'), a.V = c.dim('V'), a.H = c.dim('H'), a.d = c.dim('d'), a.L = c.dim('L');
  a.F = c.dim('X') - 5 * a.D;
  a.scratch_bytes = c.dim('Z');
  c.require(a.B <= MAX_ROWS, "rows", "B must be at most 8");
  require_patch_rows(c, rows);
  c.require(a.F > 0, "vectors", "X must be above 5·D");
  c.require(c.dim('W') % a.D == 0 && c.dim('W') / a.D >= a.P, "contexts", "W must be a multiple of D, at least P·D");
  a.children = c.dim('W') / a.D;
  c.require(a.pos_table == nullptr || c.dim('N') >= a.P, "pos_table", "N must be at least P");
  c.require(c.dim('s') == 2, "starts", "s must be 2");
  c.require(a.d % 2 == 0 && c.dim('h') == a.d / 2 && c.dim('R') > a.P, "cos", "h must be d/2, R above P");
  c.require(a.P <= MAX_PATCH, "forced", "P must be at most 32");
  c.require(a.L <= MAX_LOCAL_LAYERS && c.num_variadic() == 4 * a.L, "matrices", "there must be 4·L, of at most 32 layers");
  const int64_t heads = a.H * a.d;
  const int64_t shapes[4][2] = {{3 * heads, a.D}, {a.D, heads}, {a.F, a.D}, {a.D, a.F}};
  for (int64_t i = 0; i < 4 * a.L; i++) {
    c.require(c.is_tensor(i, a.type, {shapes[i % 4][0], shapes[i % 4][1]}), "matrices", "they must be [3·H·d, D], [D, H·d], [F, D], [D, F] for each layer");
    a.matrices[i] = c.variadic(i);
  }
  c.require(a.scratch_bytes >= local_patch_scratch_bytes(a), "scratch", "Z must be at least local_patch_scratch_bytes");
  c.require_below(a.V, "first", a.first, a.B);
  c.require_below(c.dim('C'), "slot", a.slot, a.B);
  c.outputs(a.done);
  local_patch(a, c.stream());
}

void run_mamba_step(Call& c) {
  MambaStep a{};
  c.inputs(a.x, a.slot, a.position, a.vectors, a.scratch);
  a.type = c.type();
  a.B = c.dim('B'), a.D = c.dim('D'), a.L = c.dim('L');
  a.scratch_bytes = c.dim('Z');
  c.require(a.B <= MAX_ROWS, "x", "B must be at most 8");
  constexpr int64_t TENSORS = 6;  // of a layer
  c.require(a.L >= 1 && a.L <= MAX_MAMBA_LAYERS && c.num_variadic() == TENSORS * a.L, "layers", "there must be 6·L, of at most 32 layers");
  const int64_t *in_proj = c.variadic_shape(0, 2), *conv_state = c.variadic_shape(2, 3), *ssm_state = c.variadic_shape(4, 4);
  c.require(in_proj != nullptr && conv_state != nullptr && ssm_state != nullptr, "layers", "number 0 must have 2 dimensions, number 2 3, number 4 4");
  const int64_t S = ssm_state[0];
  a.W = in_proj[0], a.taps = conv_state[1] + 1, a.C = conv_state[2];
  a.H = ssm_state[1], a.N = ssm_state[2], a.P = ssm_state[3];
  const int64_t inner = a.H * a.P;
  c.require(a.taps >= 2 && a.C == inner + 2 * a.N && a.W >= inner + a.C + a.H, "layers", "the convolution must have H·P + 2·N channels, in_proj W ≥ H·P + C + H");
  c.require(c.dim('X') == a.D + (a.taps + 1) * a.C + 3 * a.H + inner, "vectors", "X must be D + (taps + 1)·C + 3·H + H·P");
  for (int64_t l = 0; l < a.L; l++) {
    const int64_t i = TENSORS * l;
    const bool fits = c.is_tensor(i, a.type, {a.W, a.D}) && c.is_tensor(i + 1, a.type, {a.D, inner}) &&
                      c.is_tensor(i + 2, DType::f32, {S, a.taps - 1, a.C}) && c.is_tensor(i + 3, DType::f32, {a.taps - 1, a.C}) &&
                      c.is_tensor(i + 4, DType::f32, {S, a.H, a.N, a.P}) && c.is_tensor(i + 5, DType::f32, {a.H, a.N, a.P});
    c.require(fits, "layers", "they must be [W, D], [D, H·P], [S, taps − 1, C], [taps − 1, C], [S, H, N, P], [H, N, P] for each layer");
    a.in_proj[l] = c.variadic(i), a.out_proj[l] = c.variadic(i + 1);
    a.conv_state[l] = static_cast<float*>(c.variadic(i + 2)), a.conv_initial[l] = static_cast<const float*>(c.variadic(i + 3));
    a.ssm_state[l] = static_cast<float*>(c.variadic(i + 4)), a.ssm_initial[l] = static_cast<const float*>(c.variadic(i + 5));
  }
  c.require(a.scratch_bytes >= mamba_step_scratch_bytes(a), "scratch", "Z must be at least mamba_step_scratch_bytes");
  c.require_below(S, "slot", a.slot, a.B);
  c.outputs(a.y);
  mamba_step(a, c.stream());
}

}  // namespace

const std::vector<Definition>& definitions() {
  static const std::vector<Definition> all = {
      {"EmbedPatch",
       true,
       {},
       {{"ids", i32, "MS"}, {"table", work, "VD"}, {"gain", f32, "K"}, {"beta", f32, "K"}},
       {{"y", work, "MK"}},
       run_embed_patch},
      {"StageInput",
       true,
       {{"rope", true}},
       {{"e", work, "MD"},
        {"bias", f32, "D"},
        {"gain", f32, "D"},
        {"beta", f32, "D"},
        {"position", i32, "R"},
        {"slot", i32, "R"},
        {"pos_table", f32, "ND", optional},
        {"contexts", work, "CW", optional}},
       {{"x", f32, "MD"}},
       run_stage_input},
      {"LocalInput",
       true,
       {{"rope", true}, {"position"}},
       {{"ids", i32, "B"},
        {"slot", i32, "B"},
        {"table", work, "VD"},
        {"contexts", work, "CW"},
        {"pos_table", f32, "ND", optional}},
       {{"x", f32, "BD"}},
       run_local_input},
      {"NormLinear",
       true,
       {{"norm"}, {"gelu", true}},
       {{"x", f32, "MK"},
        {"gain", f32, "K"},
        {"w", work, "NK"},
        {"bias", f32, "N", optional},
        {"prev", f32, "pK", optional}},
       {{"y", work, "MN"}},
       run_norm_linear},
      {"Linear",
       true,
       {{"gelu", true}},
       {{"x", work, "MK"}, {"w", work, "NK"}, {"bias", f32, "N", optional}},
       {{"y", work, "MN"}},
       run_linear},
      {"LinearAdd",
       true,
       {},
       {{"x", work, "MK"}, {"w", work, "NK"}, {"residual", f32, "MN"}, {"bias", f32, "N", optional}},
       {{"y", f32, "MN"}},
       run_linear_add},
      {"AddNorm",
       true,
       {{"norm"}},
       {{"x", f32, "MK"},
        {"gain", f32, "K"},
        {"delta", work, "MK", optional},
        {"bias", f32, "K", optional},
        {"prev", f32, "pK", optional}},
       {{"sum", f32, "MK"}, {"h", work, "MK"}},
       run_add_norm},
      {"ShiftNorm",
       true,
       {},
       {{"x", f32, "MK"},
        {"gain", f32, "K"},
        {"state", f32, "SK"},
        {"initial", f32, "K"},
        {"slot", i32, "R"},
        {"position", i32, "R"},
        {"delta", work, "MK", optional},
        {"bias", f32, "K", optional}},
       {{"sum", f32, "MK"}, {"h", work, "MK"}},
       run_shift_norm},
      {"BiasGelu", true, {}, {{"x", work, "MN"}, {"bias", f32, "N"}}, {{"y", work, "MN"}}, run_bias_gelu},
      {"PatchAttention",
       true,
       {},
       {{"start_k", work, "Hd"},
        {"start_v", work, "Hd"},
        {"cos", f32, "Nh"},
        {"sin", f32, "Nh"},
        {"qkv", work, "BW", variadic}},
       {{"y", work, "BY"}},
       run_patch_attention},
      {"CachedAttention",
       true,
       {},
       {{"qkv", work, "MW"},
        {"k_cache", work, "SHCd"},
        {"v_cache", work, "SHCd"},
        {"start_k", work, "Hd"},
        {"start_v", work, "Hd"},
        {"cos", f32, "Nh"},
        {"sin", f32, "Nh"},
        {"slot", i32, "R"},
        {"position", i32, "R"}},
       {{"y", work, "MY"}},
       run_cached_attention},
      {"CausalConv",
       true,
       {{"offset"}},
       {{"u", work, "MW"},
        {"w", f32, "CK"},
        {"b", f32, "C"},
        {"state", f32, "StC"},
        {"initial", f32, "tC"},
        {"slot", i32, "R"},
        {"position", i32, "R"}},
       {{"y", f32, "MC"}},
       run_causal_conv},
      {"SsmScan",
       true,
       {{"dt_offset"}},
       {{"xbc", f32, "MK"},
        {"u", work, "MW"},
        {"dt_bias", f32, "H"},
        {"a", f32, "H"},
        {"d", f32, "H"},
        {"state", f32, "SHNP"},
        {"initial", f32, "HNP"},
        {"slot", i32, "R"},
        {"position", i32, "R"}},
       {{"y", f32, "MY"}},
       run_ssm_scan},
      {"GatedNorm",
       true,
       {},
       {{"y", f32, "MD"}, {"u", work, "MW"}, {"gain", f32, "D"}},
       {{"h", work, "MD"}},
       run_gated_norm},
      {"StoreRows",
       true,
       {},
       {{"src", work, "MW"}, {"dst", work, "CW"}, {"row", i32, "M"}},
       {{"done", i32, "Y"}},
       run_store_rows},
      {"Sample",
       false,
       {{"step"}},
       {{"logits", f32, "BV"},
        {"rows", i32, "BY"},
        {"forced", i32, "BP"},
        {"bias", f64, "SV"},
        {"counts", i32, "SV"},
        {"id_flags", u8, "SV"},
        {"cursor", i32, "B"},
        {"ids_out", i32, "BP"},
        {"logits_out", f32, "BPV"}},
       {{"next", i32, "B"}},
       run_sample},
      {"LocalPatch",
       true,
       {},
       {{"first", i32, "B"},
        {"slot", i32, "B"},
        {"table", work, "VD"},
        {"contexts", work, "CW"},
        {"pos_table", f32, "ND", optional},
        {"vectors", f32, "LX"},
        {"starts", work, "LsHd"},
        {"cos", f32, "Rh"},
        {"sin", f32, "Rh"},
        {"gain", f32, "D"},
        {"head", f32, "VD"},
        {"head_bias", f32, "V"},
        {"rows", i32, "BY"},
        {"forced", i32, "BP"},
        {"bias", f64, "SV"},
        {"counts", i32, "SV"},
        {"id_flags", u8, "SV"},
        {"cursor", i32, "B"},
        {"ids_out", i32, "BP"},
        {"logits_out", f32, "BPV"},
        {"scratch", u8, "Z"},
        {"matrices", work, ANY_MATRIX, variadic}},
       {{"done", i32, "B"}},
       run_local_patch},
      {"MambaStep",
       true,
       {},
       {{"x", f32, "BD"},
        {"slot", i32, "B"},
        {"position", i32, "B"},
        {"vectors", f32, "LX"},
        {"scratch", u8, "Z"},
        {"layers", any, ANY_SHAPE, variadic}},
       {{"y", f32, "BD"}},
       run_mamba_step},
  };
  return all;
}

}  // namespace mblm::onnx
