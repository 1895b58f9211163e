#!/usr/bin/env python3
"""Draws docs/pipeline.svg, the picture of README.md.

    python3 docs/draw_pipeline.py > docs/pipeline.svg

`cargo test --test docs` fails if the file and this script disagree.
"""

INK, SOFT, BLUE, GREEN, GREY = "#1f2933", "#52606d", "#e3eefb", "#e3f5e9", "#f3f4f6"
WIDTH, HEIGHT = 960, 326
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
CODE = "ui-monospace, 'DejaVu Sans Mono', monospace"


def text(x, y, words, size=13, colour=SOFT, weight="normal", font=FONT, anchor="middle"):
    return (
        f'<text x="{x}" y="{y}" font-family="{font}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="{anchor}">{words}</text>'
    )


def box(x, y, width, height, colour, title, lines, verb=None):
    middle = x + width / 2
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{colour}" '
        f'stroke="{SOFT}" stroke-width="1"/>',
        text(middle, y + 26, title, 15, INK, "bold"),
    ]
    parts += [text(middle, y + 47 + 17 * row, line) for row, line in enumerate(lines)]
    if verb:
        parts.append(text(middle, y + height - 11, verb, 12.5, INK, font=CODE))
    return "\n".join(parts)


def arrow(points, words=None, at=None, anchor="middle"):
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    line = f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.6" marker-end="url(#tip)"/>'
    return line + ("\n" + text(*at, words, 12, anchor=anchor) if words else "")


TOP, LOW, HIGH = 22, 192, 106  # rows of boxes, and their height
picture = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    'aria-label="The pipeline: a ranker learns on annotated documents and scores distant ones; '
    'the encoder is pre-trained on the pairs that it keeps and fine-tuned on annotated documents">',
    f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
    f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff"/>',
    box(20, TOP, 200, HIGH, GREY, "Distant documents", ["many; labels come from a", "knowledge base, often false"], "label"),
    box(20, LOW, 200, HIGH, GREY, "Annotated documents", ["few; labels were written", "by people"]),
    box(290, LOW, 180, HIGH, BLUE, "1 Ranker", ["learns which entity", "pairs are related"], "rank"),
    box(290, TOP, 180, HIGH, BLUE, "2 Denoising", ["keeps the k best pairs", "of every document"], "score"),
    box(540, TOP, 180, HIGH, BLUE, "3 Pre-training", ["the encoder learns", "from the kept pairs"], "pretrain"),
    box(540, LOW, 180, HIGH, BLUE, "4 Fine-tuning", ["the extractor learns", "the relations"], "finetune"),
    box(780, LOW, 160, HIGH, GREEN, "Facts", ["head, relation, tail;", "scores and a report"], "predict evaluate"),
    arrow([(220, 245), (288, 245)]),
    arrow([(220, 75), (288, 75)]),
    arrow([(380, 192), (380, 130)], "scores", (390, 165), "start"),
    arrow([(470, 75), (538, 75)], "pairs", (503, 66)),
    arrow([(630, 128), (630, 190)], "encoder", (640, 163), "start"),
    arrow([(470, 245), (538, 245)], "pairs", (503, 236)),
    arrow([(120, 298), (120, 313), (630, 313), (630, 300)]),
    arrow([(720, 245), (778, 245)]),
    "</svg>",
]
print("\n".join(picture))
