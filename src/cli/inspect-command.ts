import { Command } from "commander";
import { type Bundle, loadBundle } from "../bundle/bundle.js";
import type { VqaManifest } from "../bundle/vqa-manifest.js";
import { defaultModelDir } from "../config/load-config.js";

/** `mblm-server inspect`: what a bundle holds, after checking it. */
export function inspectCommand(): Command {
  return new Command("inspect")
    .description("check a bundle and print what it holds")
    .argument("[bundle]", "bundle folder (default: the model that comes with the package)")
    .option("--json", "print as JSON")
    .action(async (dir: string | undefined, options: { json?: boolean }) => {
      const summary = summarize(await loadBundle(dir ?? defaultModelDir()));
      process.stdout.write(options.json ? `${JSON.stringify(summary, null, 2)}\n` : format(summary));
    });
}

type Summary = ReturnType<typeof summarize>;

function summarize({ dir, manifest, info }: Bundle) {
  const stages = manifest.stages.map((stage) => ({
    index: stage.index,
    role: stage.role,
    block: stage.block_type,
    bytes_per_step: stage.bytes_per_step,
    sequence_length: stage.seq_len,
    width: stage.width,
    layers: manifest.architecture.num_layers[stage.index]!,
    parameters: stage.num_parameters,
    state_bytes: stage.states.reduce((sum, state) => sum + 4 * state.shape.reduce((a, b) => a * b, 1), 0),
    weight_bytes_per_generated_byte: Math.round(stage.weight_bytes / stage.bytes_per_step),
  }));
  return {
    name: info.id,
    folder: dir,
    created: manifest.created,
    precision: manifest.precision,
    vocabulary_size: info.vocabularySize,
    end_id: info.eosId ?? null,
    trained_context_bytes: info.contextLength,
    longest_sequence_bytes: info.maxLength ?? null,
    parameters: info.numParameters,
    state_bytes_per_sequence: stages.reduce((sum, stage) => sum + stage.state_bytes, 0),
    stages,
    files: Object.entries(manifest.files).map(([name, file]) => ({ name, bytes: file.bytes, checksum: "verified" })),
    vqa: manifest.vqa ?? null,
    training: manifest.training,
  };
}

function format(summary: Summary): string {
  const mega = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB`;
  const lines = [
    `${summary.name}  (${summary.folder})`,
    `  ${(summary.parameters / 1e6).toFixed(1)} M parameters, ${summary.precision}, vocabulary ${summary.vocabulary_size}`,
    `  trained on ${summary.trained_context_bytes} bytes of context; ` +
      (summary.longest_sequence_bytes === null
        ? "sequences may be of any length"
        : `at most ${summary.longest_sequence_bytes} bytes`),
    `  state of one sequence: ${mega(summary.state_bytes_per_sequence)}`,
    "",
    "  stage   block         bytes/step  length  width  layers  parameters       state  weights read/byte",
    ...summary.stages.map((s) =>
      [
        `  ${s.role.padEnd(7)} ${s.block.padEnd(12)}`,
        String(s.bytes_per_step).padStart(11),
        String(s.sequence_length).padStart(7),
        String(s.width).padStart(6),
        String(s.layers).padStart(7),
        s.parameters.toLocaleString("en-US").padStart(11),
        mega(s.state_bytes).padStart(11),
        mega(s.weight_bytes_per_generated_byte).padStart(18),
      ].join(" "),
    ),
    "",
    ...summary.files.map(
      (file) => `  ${file.name.padEnd(16)} ${mega(file.bytes).padStart(10)}  checksum ${file.checksum}`,
    ),
    ...(summary.vqa === null ? [] : ["", ...describeVqa(summary.vqa)]),
    "",
    ...Object.entries(summary.training).map(
      ([key, value]) => `  ${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`,
    ),
  ];
  return `${lines.join("\n")}\n`;
}

function describeVqa({ order, image, max_question_bytes, answers }: VqaManifest): string[] {
  const kind = image.mode === "pixels" ? `${image.levels ?? 256} levels` : `JPEG of quality ${image.quality}`;
  return [
    `  answers questions about images: ${order.replaceAll("_", " · ")}`,
    `  images: ${image.width} × ${image.height}, ${kind}; questions: at most ${max_question_bytes} bytes`,
    `  answers: ${Object.keys(answers).join(" ")}`,
  ];
}
