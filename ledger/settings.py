"""The rules of leases, from the environment; the same for registry and dispatcher."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ledger.rules import MailRules, Rules


class LeaseSettings(BaseSettings):
    """EVENTPROC_*; times in seconds."""

    model_config = SettingsConfigDict(env_prefix="EVENTPROC_")

    lease_s: float = Field(180.0, ge=1)
    max_attempts: int = Field(3, ge=1, description="executors that may die under a run before it is abandoned")
    max_lost_together: int = Field(10, ge=1, description="the same for runs that were lost beside others")
    max_hand_backs: int = Field(100, ge=1)
    runs_per_owner: int = Field(0, ge=0, description="that run at a time over all executors; 0: no cap")
    runs_per_handler: int = Field(0, ge=0)

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
            invited_per_owner=self.invited_per_owner,
            reinvite_after_s=self.reinvite_after_s,
            mail=self.mail(),
        )
