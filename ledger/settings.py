"""What stations that keep the ledger share, from the environment: the rules of leases, the keys that seal."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ledger.rules import KeepRules, MailRules, Rules
from schemas.topics import DAY_MS, HOOKS_KEPT_MS


class SealSettings(BaseSettings):
    """The keys that seal users' API keys in the ledger; for the stations that seal or unseal them."""

    model_config = SettingsConfigDict(populate_by_name=True)

    seal_keys: str = Field(
        "", validation_alias="EVENTPROC_SEAL_KEYS", description="Fernet keys, newest first, comma-separated"
    )
    seal_keys_file: Path | None = Field(
        None, validation_alias="EVENTPROC_SEAL_KEYS_FILE", description="the same, one a line"
    )

    def sealing(self) -> list[str]:
        """The seal keys, newest first; raises ValueError when there is none."""
        text = self.seal_keys_file.read_text() if self.seal_keys_file is not None else self.seal_keys
        keys = [key.strip() for key in text.replace(",", "\n").splitlines() if key.strip()]
        if not keys:
            raise ValueError(
                "no seal key: set EVENTPROC_SEAL_KEYS_FILE or EVENTPROC_SEAL_KEYS to at least one Fernet key"
            )
        return keys


class LeaseSettings(BaseSettings):
    """EVENTPROC_*; times in seconds."""

    model_config = SettingsConfigDict(env_prefix="EVENTPROC_")

    lease_s: float = Field(180.0, ge=1)
    max_attempts: int = Field(3, ge=1, description="executors that may die under a run before it is abandoned")
    max_lost_together: int = Field(10, ge=1, description="the same for runs that were lost beside others")
    max_hand_backs: int = Field(100, ge=1)
    runs_per_owner: int = Field(0, ge=0, description="that run at a time over all executors; 0: no cap")
    runs_per_handler: int = Field(0, ge=0)
    owner_share: float = Field(
        0.75, gt=0, le=1, description="of all slots that one owner alone may take, from four slots on; 1: all of them"
    )

    invited_per_owner: int = Field(100, ge=1, description="invitations that may be out per owner and runtime")
    reinvite_after_s: float = Field(
        30.0, gt=0, description="an invitation that nobody took up is said again after this"
    )
    mail_storm_after: int = Field(
        100, ge=0, description="emails of a kind to one recipient, within the window, before digests begin; 0: never"
    )
    mail_storm_window_s: float = Field(3600.0, gt=0)
    mail_digest_every_s: float = Field(600.0, gt=0)
    mail_digest_most: int = Field(500, ge=1, le=2000, description="runs in one digest")

    def mail(self) -> MailRules:
        """The storm guard."""
        return MailRules(
            self.mail_storm_after, self.mail_storm_window_s, self.mail_digest_every_s, self.mail_digest_most
        )

    def rules(self) -> Rules:
        """The same as the ledger takes them."""
        return Rules(
            lease_s=self.lease_s,
            max_attempts=self.max_attempts,
            max_lost_together=self.max_lost_together,
            max_hand_backs=self.max_hand_backs,
            per_owner=self.runs_per_owner,
            per_handler=self.runs_per_handler,
            owner_share=self.owner_share,
            invited_per_owner=self.invited_per_owner,
            reinvite_after_s=self.reinvite_after_s,
            mail=self.mail(),
        )


class KeepSettings(BaseSettings):
    """EVENTPROC_KEEP_*_DAYS: for how long what has ended is kept; 0: for ever."""

    model_config = SettingsConfigDict(env_prefix="EVENTPROC_KEEP_")

    texts_days: float = Field(90.0, ge=0, description="what runs returned and printed, their errors' messages")
    runs_days: float = Field(400.0, ge=0, description="runs with their attempts")
    events_days: float = Field(400.0, ge=0, description="events; each goes after its last run")
    emails_days: float = Field(400.0, ge=0, description="that an email was sent or given up, and of which runs it told")
    handler_versions_days: float = Field(
        400.0, ge=0, description="versions that were superseded or removed so long ago and of which no run is left"
    )
    files_days: float = Field(
        30.0, ge=0, description="files that handlers uploaded; a link says then that they are gone"
    )
    archives_days: float = Field(90.0, ge=0, description="uploaded archives that were published or failed")
    audit_days: float = Field(1100.0, ge=0, description="who did what to whose: the audit log")
    dead_letters_days: float = Field(400.0, ge=0, description="the topic's retention; which were redriven")

    @model_validator(mode="after")
    def _events_outlive_their_topic(self) -> Self:
        least = HOOKS_KEPT_MS / DAY_MS
        if 0 < self.events_days < least:
            raise ValueError(
                f"EVENTPROC_KEEP_EVENTS_DAYS: should be at least {least:g}, as long as the hooks' topics keep events: one that is "
                f"read again there must be known, or it runs again; is {self.events_days:g}"
            )
        return self

    def rules(self) -> KeepRules:
        """The same as the ledger takes them."""
        return KeepRules(
            texts_ms=_ms(self.texts_days),
            runs_ms=_ms(self.runs_days),
            events_ms=_ms(self.events_days),
            emails_ms=_ms(self.emails_days),
            handler_versions_ms=_ms(self.handler_versions_days),
            redriven_ms=_ms(self.dead_letters_days),
            audit_ms=_ms(self.audit_days),
        )

    def files_s(self) -> float | None:
        """How old a file of a handler may be, in seconds; None: as old as it likes."""
        return self.files_days * DAY_MS / 1000 or None

    def dead_letters_ms(self) -> int:
        """The topic's retention.ms; -1: for ever."""
        return _ms(self.dead_letters_days) or -1


def _ms(days: float) -> int | None:
    return int(days * DAY_MS) if days else None
