"""How pickles.json came about: run with each Python and dill, `python make_pickles.py FOLDER-WITH-DILL pickles.json`.

Adds to the file {"<Python>-<dill>-<function>": base64 of the pickle}. Python 3.6 can run it.
"""

import base64
import json
import os
import sys

sys.path.insert(0, sys.argv[1])
import dill

K = 3


def simple(**kwargs):
    return "x"


def rich(DataSets, File=None, *a, q=2, **kwargs):
    import json

    class Inner(object):
        n = 1

        def go(self, v):
            return [i * v + self.n for i in range(3) if i]

    total = 0
    for k in sorted({1: 2}.items()):
        total += len(k)
    try:
        with open(os.devnull) as f:
            total = total + len(f.read())
    except (OSError, ValueError) as e:
        print("bad %s" % e)
    finally:
        total -= K

    def gen():
        for x in range(3):
            yield x

    while total > 100:
        total -= 1
        if total == 5:
            break
    d = dict(a=1)
    d["b"] = not total
    return "%s %s" % (Inner().go(2), list(gen())), json.dumps(d), (lambda z: z + total)(1), f"{total}"


if __name__ == "__main__":
    file = sys.argv[2]
    known = json.load(open(file)) if os.path.exists(file) else {}
    for name, function in (("simple", simple), ("rich", rich)):
        key = "%d.%d-%s-%s" % (sys.version_info[0], sys.version_info[1], dill.__version__, name)
        known[key] = base64.b64encode(dill.dumps(function, recurse=True)).decode()
    with open(file, "w") as out:
        json.dump(known, out, indent=0, sort_keys=True)
