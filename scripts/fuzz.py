"""Mutates real files of each kind and gives them to the readers: `make fuzz SECONDS=600`.

A reader must answer with a result or with an error of segpets, within 5 s and 2 GB, and write
nothing elsewhere. What breaks that is written to tests/fuzzed/, where a test gives it again.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml
from fuzz_kinds import KINDS, ROOT, Kind

FUZZED = ROOT / "tests" / "fuzzed"
LONGEST, LARGEST = 5.0, 2e9
BATCH = 200
TOKENS = [
    b"\0",
    b"\n",
    b"\xff\xfe",
    b"'",
    b'"',
    b"${x}",
    b"../",
    b"\x1b[2J",
    b"1e999",
    b"-1",
    b"NaN",
]
ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        2**70,
        1e308,
        float("nan"),
        "",
        "x",
        "x" * 5000,
        [],
        {},
        [[]],
        "../x",
        "a/b",
    ),
    *("\x1b[31m", "\n", "\0", "${x}", "=1+1", "os.system", "1:1", [None], {"": None}, "é\u202e"),
]


def mutated(seed: bytes, kind: Kind, rng: random.Random) -> bytes:
    """Changes a sound file in one to a few places."""
    if kind.tree is not None and rng.random() < 0.6:
        parse, write = kind.tree
        tree = parse(seed)
        for _ in range(rng.choice([1, 1, 2, 4])):
            tree = _odd_node(tree, rng)
        try:
            return write(tree)
        except (ValueError, TypeError, yaml.YAMLError, OverflowError):
            return seed[: rng.randrange(len(seed))]
    content = bytearray(seed)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(content) + 1)
        length = rng.choice([1, 2, 4, 16, 256])
        match rng.randrange(7):
            case 0 if content:
                content[min(at, len(content) - 1)] ^= 1 << rng.randrange(8)
            case 1 if content:
                content[min(at, len(content) - 1)] = rng.randrange(256)
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length] * rng.choice([1, 2, 50])
            case 4:
                del content[at:]
            case 5:
                content[at : at + 4] = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 255]).to_bytes(
                    4, "little"
                )
            case _:
                content[at:at] = rng.choice(TOKENS)
    return bytes(content)


def _odd_node(node: Any, rng: random.Random) -> Any:
    """Replaces a random node of a tree, removes it, or gives it another name."""
    places = (
        list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
    )
    if not places or rng.random() < 0.15:
        return rng.choice(ODD)
    place = rng.choice(list(places))
    if isinstance(node, dict) and rng.random() < 0.15:
        value = node.pop(place)
        if rng.random() < 0.5:
            node[str(rng.choice(ODD))[:100]] = value
    else:
        node[place] = _odd_node(node[place], rng)
    return node


def answer(kind: Kind, content: bytes, folder: Path) -> str:
    """Gives one input to the readers of its kind; returns "" or what is wrong with the answer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file = folder / "input"
    file.write_bytes(content)
    began = time.process_time()
    try:
        kind.read(file)
    except kind.allowed:
        pass
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/segpets/" in f.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {place}: {str(error)[:200]}"
    if time.process_time() - began > LONGEST:
        return f"{time.process_time() - began:.0f} s"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{peak / 1e9:.1f} GB" if peak > LARGEST else ""


def _batch(name: str, seed: int, folder: Path, pipe: Connection) -> None:
    os.chdir(folder)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1), os.dup2(devnull, 2)
    kind = KINDS[name]
    seeds = kind.seeds()
    for number in range(BATCH):
        rng = random.Random(f"{name} {seed} {number}")
        content = mutated(rng.choice(seeds), kind, rng)
        pipe.send(("begin", content))
        pipe.send(("end", answer(kind, content, folder / "work")))


def fuzz(name: str, seconds: float, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yields what is wrong with the answers to mutated files of a kind, and these files."""
    until = time.monotonic() + seconds
    context = multiprocessing.get_context("fork")
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = context.Pipe()
            process = context.Process(target=_batch, args=(name, seed, Path(folder), theirs))
            process.start()
            theirs.close()
            content = b""
            try:
                while True:
                    if not ours.poll(3 * LONGEST):
                        process.kill()
                        yield "hangs", content
                        break
                    word, value = ours.recv()
                    if word == "begin":
                        content = value
                    elif value:
                        yield value, content
                    else:
                        yield "", content
            except EOFError:
                process.join()
                if process.exitcode:
                    yield f"the process ended with {process.exitcode}", content
            process.join()
            if strays := {p.name for p in Path(folder).iterdir()} - {"work"}:
                yield f"it wrote {sorted(strays)}", content
        seed += 1


def main() -> None:
    """Fuzzes every kind, or those that are named, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    given = parser.parse_args()
    failed = 0
    for name in given.kinds:
        answers: Counter[str] = Counter()
        for problem, content in fuzz(name, given.seconds / len(given.kinds), given.seed):
            key = problem.partition(":")[0] + problem.partition(":")[2].partition(":")[0]
            answers[key] += 1
            if problem and answers[key] == 1:
                failed += 1
                place = FUZZED / name / hashlib.sha256(content).hexdigest()[:16]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                print(f"{name}: {problem}\n  {place.relative_to(ROOT)}", flush=True)
        wrong = sum(count for key, count in answers.items() if key)
        print(f"{name}: {sum(answers.values()):,} inputs, {wrong:,} wrong answers", flush=True)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
