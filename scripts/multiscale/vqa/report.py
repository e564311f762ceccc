"""What an evaluation leaves behind: a table, a plot, and a page of images with questions and answers."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from multiscale.vqa.clevr.families import KINDS
from multiscale.vqa.data.blocks import Block
from multiscale.vqa.scores import Share, table

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .25rem .5rem; text-align: left }
.image { display: flex; gap: 1.5rem; margin: 1.5rem 0; align-items: flex-start }
.image img { flex: none; width: 310px; image-rendering: pixelated; border: 1px solid #ccc }
.wrong { color: #b00020 } .right { color: #1b6e2c } li { margin: .15rem 0 }
"""


def write_report(
    folder: Path,
    block: Block,
    results: dict[str, dict[str, Share]],
    answers: list[str],
    probabilities: np.ndarray,
    pages: int,
) -> None:
    """`answers` and `probabilities`: the model's, the first of `results`."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        name: {
            kind: {"accuracy": s.value, "interval": s.interval(), "questions": s.count} for kind, s in by_kind.items()
        }
        for name, by_kind in results.items()
    }
    (folder / "results.json").write_text(json.dumps({"results": facts, "answers": answers}, indent=1) + "\n")
    (folder / "table.md").write_text(table(results) + "\n")
    plot(folder / "accuracy.png", results)
    (folder / "examples.html").write_text(page(block, results, answers, probabilities, pages))


def plot(path: Path, results: dict[str, dict[str, Share]]) -> None:
    """Bars with intervals; nothing where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no accuracy.png")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = [*KINDS, "all"]
    figure, axes = plt.subplots(figsize=(10, 4.5))
    width = 0.8 / len(results)
    for number, (name, by_kind) in enumerate(results.items()):
        x = np.arange(len(columns)) + (number - (len(results) - 1) / 2) * width
        values = np.nan_to_num([100 * by_kind[c].value for c in columns])
        bounds = 100 * np.array([by_kind[c].interval() for c in columns])
        error = np.abs(bounds.T - values)
        axes.bar(x, values, width * 0.95, yerr=error, label=name, error_kw={"elinewidth": 1})
    axes.set_xticks(np.arange(len(columns)), [c.replace("_", " ") for c in columns])
    axes.set(ylabel="right answers, % (95 % interval)", ylim=(0, 100))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(ncols=4, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(
    block: Block, results: dict[str, dict[str, Share]], answers: list[str], probabilities: np.ndarray, images: int
) -> str:
    header, _, *rows = table(results).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *rows)]
    lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Visual questions</title>",
        f"<style>{_STYLE}</style><h1>Visual questions</h1><table>{''.join(lines)}</table>",
        "<p>Images as the model sees them. Green: right; red: wrong, with the right answer behind it.</p>",
    ]
    for image in range(min(images, len(block))):
        numbers, asked = block.asked(image)
        items = []
        for i, (question, truth) in zip(numbers, asked, strict=True):
            is_right = answers[i] == truth
            said = f"{html.escape(answers[i])} ({probabilities[i].max():.0%})"
            more = "" if is_right else f" · {html.escape(truth)}"
            mark = "right" if is_right else "wrong"
            items.append(f"<li>{html.escape(question)} <b class={mark}>{said}</b>{more}</li>")
        parts.append(
            f"<div class=image><img alt='' src='{_data_url(block.pixels[image])}'><ul>{''.join(items)}</ul></div>"
        )
    return "\n".join(parts) + "\n</html>\n"


def _data_url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
