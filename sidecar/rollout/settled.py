"""What a settings file asks of the log at a start. Pure.

The settings may name who promoted a version and why. That is recorded as the first transition, and followed for as long
as nobody has decided otherwise by a command: a rollback is not undone by a restart.
"""

from sidecar.rollout.standing import SETTINGS, Ask, Standing, Version, What

NOBODY = "the settings file"
OVERRIDE = "promoted by the settings file"
UNNAMED = "the settings name no promotion any more"


def asked_by_settings(model: str, version: Version, promoted: tuple[str, str] | None, now: Standing) -> Ask | None:
    """The next transition that the settings ask for; None when the log says what they say, or a person decided.

    `promoted` is who promoted `version` and why. A promotion that is taken out of the settings suspends the model.
    """
    follows = not now.by_people
    if promoted is None:
        if follows and now.champions and not now.suspended:
            return Ask(What.SUSPEND, model, NOBODY, UNNAMED, evidence=SETTINGS)
    elif follows and version != now.champion and version.digest not in now.withdrawn:
        return Ask(What.PROMOTE, model, *promoted, version, evidence=SETTINGS, override=OVERRIDE)
    elif follows and now.suspended:
        return Ask(What.RESUME, model, *promoted, evidence=SETTINGS)
    return new_in_shadow(model, version, now)


def new_in_shadow(model: str, version: Version, now: Standing) -> Ask | None:
    """What lets a version begin that the log does not know; None when it does."""
    if version in now.known:
        return None
    return Ask(What.SHADOW, model, NOBODY, "every model starts in shadow", version, evidence=SETTINGS)


def is_followed(promoted: tuple[str, str] | None, version: Version, now: Standing) -> bool:
    """Whether the log says what the settings say of who writes."""
    return promoted is None or (version == now.champion and not now.suspended)
