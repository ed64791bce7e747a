#!/usr/bin/env python3
"""Writes the data beside the recall checkpoint: the demo's facts and questions, and the held-out evaluation set.

    scripts/dev/make_recall_data.py --out model/recall

Needs only Python. The data is drawn at random, with fixed seeds that training never uses. It is not selected by whether
the model answers rightly.
"""
from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from recall_task import Generator, Shape, Tokenizer

TOWNS = """arden birling corby dover elmet fenby garth hollin ivel jarrow kelso linden""".split()
FACT_SHAPE = Shape(8, 48, 4)    # 200 to 384 tokens a file: one chunk or two
EVAL_SHAPES = [Shape(3, 32, 2), Shape(5, 40, 3), Shape(8, 48, 4), Shape(12, 48, 4)]
EVAL_PER_SHAPE = 12


def text_of(generator: Generator, documents: list) -> list[str]:
    return [generator.document_text(sentences) for sentences in documents]


def question_text(generator: Generator, ids: list[int]) -> str:
    """The question's text without the marker <q>."""
    return generator.t.decode(ids).removeprefix("<q> ")


def write_facts(generator: Generator, out: Path) -> None:
    rng = random.Random(7_000_001)
    (out / "facts").mkdir(parents=True, exist_ok=True)
    with open(out / "questions.jsonl", "w", encoding="utf-8") as lines:
        for town in TOWNS:
            instance = generator.draw(FACT_SHAPE, rng)
            (out / "facts" / f"{town}.txt").write_text("".join(text_of(generator, instance.documents)), encoding="utf-8")
            # One question of each task per file.
            for task in ("recall", "binding", "twohop"):
                question = next(q for q in instance.questions if q.task == task)
                lines.write(json.dumps(dict(file=f"facts/{town}.txt", task=task,
                                            question=question_text(generator, question.ids),
                                            answer=generator.t.decode([question.answer]).strip())) + "\n")


def write_eval(generator: Generator, out: Path) -> None:
    rng = random.Random(7_000_002)
    with open(out / "eval.jsonl", "w", encoding="utf-8") as lines:
        for shape in EVAL_SHAPES:
            for _ in range(EVAL_PER_SHAPE):
                instance = generator.draw(shape, rng)
                asked = [dict(task=q.task, question=question_text(generator, q.ids),
                              answer=generator.t.decode([q.answer]).strip()) for q in instance.questions]
                lines.write(json.dumps(dict(documents=text_of(generator, instance.documents), asked=asked)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    generator = Generator(Tokenizer())
    write_facts(generator, args.out)
    write_eval(generator, args.out)


if __name__ == "__main__":
    main()
