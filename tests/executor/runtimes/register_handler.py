"""Run by each Python: registers a handler as its user would. Python 3.6 can run it.

With an endpoint and a key it goes by btrdbextras; without, the handler's pickle is written to the file that is given.
"""

import sys


def handler(btrdb, DataSets, **kwargs):
    import sys

    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"v": np.arange(4.0)})
    print("names: %s" % ", ".join(sorted(kwargs)))
    return "%d.%d %s %.1f %s %s" % (
        sys.version_info[0],
        sys.version_info[1],
        DataSets[0]["Name"],
        frame["v"].sum(),
        btrdb.info()["majorVersion"],
        len(btrdb.list_collections()),
    )


if __name__ == "__main__":
    if len(sys.argv) == 2:
        import dill

        with open(sys.argv[1], "wb") as file:
            file.write(dill.dumps(handler, recurse=True))
    else:
        from btrdbextras import Connection
        from btrdbextras.eventproc import register

        name = "from %d.%d" % sys.version_info[:2]
        connection = Connection(sys.argv[1], sys.argv[2])
        register(connection, name, "ctingress.on_complete", "ok@example.com", "bad@example.com")(handler)
