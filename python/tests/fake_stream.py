#!/usr/bin/env python3
"""Stands in for the program in tests: speaks the stream of `predict`, and fails where asked to.

The checkpoint's name says what goes wrong: `good`, or a fault and the number of good answers before
it, such as `dies:3`.
"""

import json
import os
import signal
import sys
import time

arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("docre-pretrain 0.0.0 (a stand-in)")
    sys.exit(0)
if arguments[:1] == ["fail"]:
    print("warning: it will not go well", file=sys.stderr)
    print("error: it went wrong\n\nhint: do something else", file=sys.stderr)
    sys.exit(int(arguments[1]))
if arguments[:1] == ["environment"]:
    print(json.dumps(dict(os.environ)))
    sys.exit(0)

assert arguments[:2] == ["predict", "--stream"], arguments
fault, _, after = arguments[arguments.index("--checkpoint") + 1].partition(":")
after = int(after or 0)
if fault == "missing":
    print("warning: this is about to end", file=sys.stderr)
    print("error: missing: no such checkpoint\n\nhint: name a checkpoint", file=sys.stderr)
    sys.exit(65)


def answer(number: int, line: bytes) -> dict[str, object]:
    """Answer a document with a fact from its first to its last entity."""
    try:
        document = json.loads(line)
    except ValueError:
        return {"line": number, "error": {"message": "the line is empty"}}
    title = document.get("title", f"line {number}")
    if "bad" in document:
        error = {"message": "this is bad", "field": "bad", "hint": "make it good"}
        return {"line": number, "title": title, "error": error}
    if "arguments" in document:
        title = json.dumps(arguments)
    given = document.get("vertexSet") or document.get("entities") or []
    entities = [{"name": f"entity {i}", "type": "PER"} for i in range(len(given))]
    fact = {"h_idx": 0, "t_idx": len(given) - 1, "r": "P1", "evidence": [0], "score": 1.5}
    facts = [fact | {"relation": title}] if len(given) > 1 else []
    result = {"line": number, "title": title, "facts": facts, "entities": entities}
    if "text" in document:
        result["sentences"] = [[document["text"]]]
    # As large as what it answers, so that both pipes fill.
    return result | {"filling": "x" * (len(line) if fault == "reluctant" else 0)}


if fault == "reluctant":
    time.sleep(0.5)
for number, line in enumerate(sys.stdin.buffer, 1):
    # The first line is the one by which a model is known to be loaded.
    if number > after + 1:
        match fault:
            case "dies":
                print("error: it is all over\n\nhint: begin anew", file=sys.stderr)
                sys.exit(70)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "garbage":
                print("{", flush=True)
                continue
            case "other":
                print(json.dumps({"line": number, "facts": 7}), flush=True)
                continue
            case "skips":
                number += 1
            case "stalls":
                time.sleep(3600)
            case "leaves":
                sys.exit(0)
            case "shuts":
                os.close(1)
                time.sleep(3600)
    print(json.dumps(answer(number, line)), flush=True)
if fault == "clings":
    time.sleep(3600)
