"""Table and plot of a benchmark run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_report(results: dict[str, Any], out: Path) -> str:
    """Writes results.json, table.md and plot.png; returns the table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    table = format_table(results)
    (out / "table.md").write_text(table)
    plot(results, out / "plot.png")
    return table


def format_table(r: dict[str, Any]) -> str:
    single, floor = r["single_stream"], r["floor"]
    lines = [
        f"Model {r['model']} ({r['precision']}); {r['machine']}; medians of {r['rounds']} rounds, all in one run.",
        "",
        "| one stream | bytes/s | server is |",
        "|---|---|---|",
        f"| server, over HTTP | {single['server']:.0f} | |",
        f"| bare engine | {single['engine']:.0f} | {single['server'] / single['engine']:.2f}× |",
        f"| hand-cached eager PyTorch, 1 thread | {single['eager_1']:.0f} | {single['server'] / single['eager_1']:.1f}× |",
        f"| hand-cached eager PyTorch, 2 threads | {single['eager_2']:.0f} | {single['server'] / single['eager_2']:.1f}× |",
        f"| bytes-moved floor ({floor['megabytes_per_byte']:.1f} MB a byte at {floor['gigabytes_per_second']:.0f} GB/s) "
        f"| {floor['bytes_per_second']:.0f} | {single['server'] / floor['bytes_per_second']:.2f}× |",
        "",
        "| context | server ms/byte | first byte after | reference ms/byte | server is |",
        "|---|---|---|---|---|",
    ]
    for row in r["contexts"]:
        reference = row.get("reference_ms")
        compared = f"{reference:.0f} | {reference / row['ms_per_byte']:.0f}×" if reference else "– | –"
        lines.append(
            f"| {row['context']} | {row['ms_per_byte']:.2f} | {row['first_byte_seconds'] * 1000:.0f} ms | {compared} |"
        )
    ms = [row["ms_per_byte"] for row in r["contexts"]]
    lines += ["", f"Time per byte over contexts: largest / smallest = {max(ms) / min(ms):.2f}", ""]
    lines += ["| streams | bytes/s in all | against one |", "|---|---|---|"]
    base = r["concurrency"][0]["bytes_per_second"]
    lines += [
        f"| {c['streams']} | {c['bytes_per_second']:.0f} | {c['bytes_per_second'] / base:.2f}× |"
        for c in r["concurrency"]
    ]
    constraints, reuse = r["constraints"], r["reuse"]
    lines += ["", "| constraint | bytes/s | cost per byte |", "|---|---|---|"]
    lines += [
        f"| {name} | {rate:.0f} | {100 * (constraints['none'] / rate - 1):+.1f} % |"
        for name, rate in constraints.items()
    ]
    lines += [
        "",
        f"First byte of a 16 KiB prompt after {reuse['cold_seconds'] * 1000:.0f} ms, "
        f"from the prefix cache after {reuse['cached_seconds'] * 1000:.0f} ms "
        f"({reuse['cold_seconds'] / reuse['cached_seconds']:.0f}×); "
        f"`/v1/score`: {reuse['score_bytes_per_second']:.0f} bytes/s.",
    ]
    return "\n".join(lines) + "\n"


def plot(r: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ((left, first), (middle, right)) = plt.subplots(2, 2, figsize=(11, 8))
    contexts = [row["context"] for row in r["contexts"]]
    left.plot(contexts, [row["ms_per_byte"] for row in r["contexts"]], "o-", label="mblm-server")
    compared = [row for row in r["contexts"] if row.get("reference_ms")]
    left.plot([c["context"] for c in compared], [c["reference_ms"] for c in compared], "s-", label="reference generate")
    left.set(xlabel="context (bytes)", ylabel="ms per byte", title="Time per byte", yscale="log")
    left.legend()
    first.plot(contexts, [row["first_byte_seconds"] for row in r["contexts"]], "o-")
    first.set(xlabel="prompt (bytes)", ylabel="seconds", title="Time to first byte", ylim=(0, None))
    for axes in (left, first):
        axes.set_xscale("log", base=2)
        axes.set_xticks(contexts, [f"{context // 1024} Ki" for context in contexts])
    names = ["server", "engine", "eager_1", "eager_2"]
    labels = ["server\n(HTTP)", "bare\nengine", "eager\n1 thread", "eager\n2 threads"]
    middle.bar(labels, [r["single_stream"][name] for name in names], color=["C0", "C0", "C1", "C1"])
    middle.set(ylabel="bytes/s", title="One stream")
    right.plot([c["streams"] for c in r["concurrency"]], [c["bytes_per_second"] for c in r["concurrency"]], "o-")
    right.set(xlabel="concurrent streams", ylabel="bytes/s in all", title="Throughput", ylim=(0, None))
    for axes in (left, first, middle, right):
        axes.grid(alpha=0.3)
    figure.suptitle(f"{r['model']} ({r['precision']}), {r['machine']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
