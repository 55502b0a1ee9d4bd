#!/usr/bin/env python3
"""Plants faults in the GPU backend, one at a time, and asks that the suite catches each.

    python3 tests/mutations/run.py [--only TEXT] [--work FOLDER] [--outcome tests/mutations/outcome.txt]

faults.toml lists them: a file, a text that occurs in it exactly once, what stands there instead, and
the check that must fail then (a name in its [checks] table: a target to build, a command to run). The work happens in a copy of
the tree; every check must pass there before the first fault. A fault counts as caught when the check
fails or does not end in its time; one that does not compile is a mistake in the list. Takes about half
a minute a fault.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHECK_SECONDS = 600


def copy_tree(to):
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = ROOT / name, to / name
        if not source.is_file():
            continue
        # A file that is as it was keeps its time: the last fault of the time before was taken back
        # after its object was built.
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def build(tree, targets):
    return subprocess.run(["cmake", "--build", str(tree / "build"), "--target", *targets],
                          capture_output=True, text=True)


def check(tree, command):
    """(passed, last line of the output)"""
    environment = dict(os.environ, OMP_WAIT_POLICY="passive")
    try:
        run = subprocess.run(command, shell=True, cwd=tree, capture_output=True, text=True,
                             env=environment, timeout=CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"not done after {CHECK_SECONDS} s"
    lines = (run.stdout + run.stderr).strip().splitlines()
    telling = [x for x in lines if "SIMT fault" in x or "error" in x.lower() or "FAILED" in x]
    return run.returncode == 0, (telling or lines or [f"exit status {run.returncode}"])[0].strip()


def plant(path, fault):
    text = path.read_text(encoding="utf-8")
    if text.count(fault["find"]) != 1:
        sys.exit(f"{fault['name']}: its text occurs {text.count(fault['find'])} times in "
                 f"{fault['file']}, expected once")
    path.write_text(text.replace(fault["find"], fault["replace"]), encoding="utf-8")
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    parser.add_argument("--work", help="keep the copy and its build here, for the next time")
    parser.add_argument("--outcome", help="also write the table to this file")
    args = parser.parse_args()
    plan = tomllib.loads((HERE / "faults.toml").read_text(encoding="utf-8"))
    faults = [f for f in plan["fault"] if args.only in f["name"]]
    checks = {name: plan["checks"][name] for name in sorted({f["check"] for f in faults})}
    rows, missed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(args.work or folder)
        copy_tree(tree)
        subprocess.run(["cmake", "-S", str(tree), "-B", str(tree / "build"), "-G", "Ninja",
                        "-DCT_GPU=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"],
                       check=True, stdout=subprocess.DEVNULL)
        done = build(tree, sorted({"clip-train", *(c["target"] for c in checks.values())}))
        if done.returncode:
            sys.exit(done.stdout[-4000:] + done.stderr)
        for name, used in checks.items():
            passed, line = check(tree, used["command"])
            if not passed:
                sys.exit(f"check {name} fails without any fault: {line}")
        for fault in faults:
            begin, path = time.monotonic(), tree / fault["file"]
            original = plant(path, fault)
            used = checks[fault["check"]]
            done = build(tree, [used["target"]])
            if done.returncode:
                sys.exit(f"{fault['name']}: does not compile\n{done.stdout[-3000:]}")
            passed, line = check(tree, used["command"])
            path.write_text(original, encoding="utf-8")
            missed += passed
            rows.append(f"{'MISSED' if passed else 'caught'}  {fault['name']} ({fault['file']}): "
                        f"{'nothing noticed' if passed else line[:150]}")
            print(f"{rows[-1]}  [{time.monotonic() - begin:.0f} s]", flush=True)
    summary = f"{len(rows) - missed} of {len(rows)} planted faults caught"
    print(summary)
    if args.outcome:
        pathlib.Path(args.outcome).write_text("\n".join([*rows, summary, ""]), encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
