"""Run by each Python with each set of versions: what an existing notebook does. Python 3.6 can run it.

Arguments: the handler's name, its tag, its address.
"""

import sys

import btrdb  # first, as in a notebook: its generated code must not meet ours

from btrdbextras import Connection
from btrdbextras.eventproc import eventproc as as_ever
from btrdbextras.eventproc import hooks, list_handlers, register, sample_event, try_handler, upload_file

LIMIT = 2


class Report(object):
    def __init__(self, names):
        self.names = names

    def text(self):
        return "%d: %s" % (LIMIT, " ".join(sorted(self.names)))


def handler(btrdb, DataSets, File, **kwargs):
    import sys

    print("looking at", File)
    return "py%d.%d %s %s" % (
        sys.version_info[0],
        sys.version_info[1],
        btrdb.info()["majorVersion"],
        Report(kwargs).text(),
    )


def main(name, tag, address):
    """Registers, and checks what it can of the rest."""
    conn = Connection()
    assert hooks(conn) == ["ctingress.on_complete"], hooks(conn)
    tried = try_handler(handler, sample_event())
    assert tried.ok, tried
    assert register(conn, name, "ctingress.on_complete", address, address, tags=[tag])(handler) is handler
    (made,) = [one for one in list_handlers(conn) if one.name == name]
    assert len(made) == 11 and made.tags == [tag] and made.created_at.utcoffset().total_seconds() == 0
    assert as_ever.upload_file is upload_file
    assert btrdb.connect is not None


if __name__ == "__main__":
    main(*sys.argv[1:])
