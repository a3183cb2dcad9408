"""Scripts and what else of A1111 changes a picture and is not here: refused by its name, if on."""

from __future__ import annotations

from typing import Any

from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.doors.a1111.settings_overrides import check_model
from lpw_sdxl.errors import InvalidRequestError, UnservedScriptError

SHOWN_CHARACTERS = 64
_NONE = ("", "none")
_ON = ("enabled", "enable", "is_enabled", "ad_enable", "active")
_NOTHING = (None, False, "", 0, "none", "None", "false", "False")


def check_scripts(fields: LooseFields) -> None:
    """Refuse scripts that would run; those without arguments, or switched off, are ignored.

    Raises:
        UnservedScriptError: one would run.
    """
    name = (fields.text("script_name") or "").strip()
    if name.lower() not in _NONE:
        raise UnservedScriptError(
            f"Script {_shown(name)} not found: scripts are not run here; null is right",
            field="script_name",
        )
    scripts = fields.inner("alwayson_scripts")
    for script, value in scripts.values.items():
        arguments = value.get("args") if isinstance(value, dict) else value
        if not is_off(arguments):
            raise UnservedScriptError(
                f"alwayson_scripts has {_shown(script)}, which is not here and would change the"
                " picture; without it, or with no args, the request is drawn",
                field=f"alwayson_scripts.{script[:SHOWN_CHARACTERS]}",
            )


def check_unserved(fields: LooseFields, model: ServedModel) -> None:
    """Refuse what would change the picture and is not done here.

    Raises:
        InvalidRequestError: it is asked for.
    """
    for name, reason in (
        ("restore_faces", "faces are not restored"),
        ("tiling", "the picture's edges are not joined"),
    ):
        if fields.flag(name):
            raise fields.refuse(name, f"is not done here: {reason}; false is right")
    styles = [one for one in fields.texts("styles") if one.strip().lower() not in _NONE]
    if styles:
        raise fields.refuse(
            "styles", f"names {_shown(styles[0])}; there are no styles here: its text, in prompt"
            " and negative_prompt, is right"
        )  # fmt: skip
    if not _is_empty(fields.values.get("firstpass_image")):
        raise fields.refuse("firstpass_image", "is not taken here; null is right")
    _check_refiner(fields, model)
    _check_seed_resize(fields)


def is_off(arguments: Any) -> bool:
    """Return whether a script's arguments leave it off.

    They do if there are none, if the first is a switch that is off, or if all are units that are
    off, or nothing.
    """
    if isinstance(arguments, list):
        if arguments and arguments[0] is False:
            return True
        return all(map(is_off, arguments))
    if isinstance(arguments, dict):
        if not arguments or arguments.get("ad_model") in ("None", "none"):
            return True
        switches = [arguments[name] for name in _ON if name in arguments]
        return bool(switches) and all(map(_is_empty, switches))
    return _is_empty(arguments)


def _check_refiner(fields: LooseFields, model: ServedModel) -> None:
    """Refuse another model for the last steps; the served one is no other.

    Raises:
        InvalidRequestError: there is one.
    """
    name = (fields.text("refiner_checkpoint") or "").strip()
    if name.lower() in _NONE or (fields.number("refiner_switch_at") or 0) >= 1:
        return
    try:
        check_model(fields, "refiner_checkpoint", model)
    except InvalidRequestError:
        raise fields.refuse(
            "refiner_checkpoint", "is another model, and one makes all steps here; null is right"
        ) from None


def _check_seed_resize(fields: LooseFields) -> None:
    """Refuse the noise of another size; -1 and 0 are none, and so is one side alone.

    Raises:
        InvalidRequestError: it is asked for.
    """
    names = ("seed_resize_from_h", "seed_resize_from_w")
    if all((fields.whole(name) or 0) > 0 for name in names):
        raise fields.refuse(names[0], "is not done here; 0 or -1 is right")


def _is_empty(value: Any) -> bool:
    return value in _NOTHING if not isinstance(value, list | dict) else not value


def _shown(name: str) -> str:
    return repr(name[:SHOWN_CHARACTERS])
