"""Users' keys under the newest seal key."""

from __future__ import annotations

from admin import desk
from admin.say import fail, out
from ledger import Ledger
from ledger.audit import LEDGER, Act, note
from ledger.credentials import reseal as seal_anew
from ledger.settings import SealSettings
from telemetry.settings import from_environment


def reseal() -> None:
    """Seals every user's key with the newest of EVENTPROC_SEAL_KEYS_FILE, so that the older ones can be taken out."""
    try:
        keys = from_environment(SealSettings).sealing()
    except (ValueError, OSError) as error:
        raise fail(str(error), desk.CALLED_WRONGLY) from error
    with desk.ledger() as plain:
        try:
            ledger = Ledger.open(plain.engine.url.render_as_string(hide_password=False), keys)
        except ValueError as error:
            raise fail(f"EVENTPROC_SEAL_KEYS_FILE: not a Fernet key: {error}", desk.CALLED_WRONGLY) from error
        with ledger.write() as session:
            count, lost = seal_anew(session, ledger)
            note(session, desk.operator(), Act.RESEAL, LEDGER, "keys", sealed=count, lost=len(lost))
        ledger.close()
    out.print(f"{count} sealed anew")
    if lost:
        names = ", ".join(sorted(set(lost)))
        raise fail(f"no present seal key opens those of {names}; they have to be sealed again")
