"""Which model is served: a bento's own, the volume's, the local store's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lpw_sdxl.errors import ModelError
from lpw_sdxl.store.served import find_served
from lpw_sdxl.store.volume import Volume, open_volume

from .test_entries import NEW, OLD, _publish
from .test_volume import make_entry

Served = Callable[..., tuple[str, bool]]
THEIRS = "theirs:dddddddddddd"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where service.py of a checkout lies."""
    return tmp_path / "src"


@pytest.fixture
def bento(tmp_path: Path, folder: Path) -> Path:
    """The same, in a bento with the model OLD."""
    text = f"services: [{{name: S, models: [{{tag: 'lora-a:bb'}}, {{tag: '{OLD}'}}]}}]"
    (tmp_path / "bento.yaml").write_text(text)
    return folder


@pytest.fixture
def empty_bento(tmp_path: Path, folder: Path) -> Path:
    (tmp_path / "bento.yaml").write_text("services: [{name: S, models: []}]")
    return folder


@pytest.fixture
def volume(tmp_path: Path, store_home: Path) -> Volume:
    """A volume that may have models, beside a local store with OLD and then NEW."""
    _publish(OLD, "old")
    _publish(NEW, "new")
    (tmp_path / "volume").mkdir()
    opened = open_volume(tmp_path / "volume")
    assert opened is not None
    return opened


def served(
    setting: str, argument: str, folder: Path, volume: Volume | None
) -> tuple[str, bool, bool]:
    """Its tag, whether it is on the volume, and whether a bento that is built now carries it."""
    found = find_served(setting, argument, folder, volume)
    is_there = volume is not None and volume.folder in found.entry.path.parents
    return found.entry.tag, is_there, found.is_built_in


LOCAL, BUILT_IN, THERE = (False, False), (False, True), (True, False)


@pytest.mark.usefixtures("volume")
def test_without_a_volume_it_is_the_setting_then_the_argument_then_the_bentos(
    bento: Path,
) -> None:
    assert served(NEW, OLD, bento, None) == (NEW, *BUILT_IN)
    assert served("", NEW, bento, None) == (NEW, *BUILT_IN)
    assert served("", "", bento, None) == (OLD, *BUILT_IN)
    with pytest.raises(ModelError, match="No model sdxl:latest is in the store, which has"):
        served("", "mounted", bento, None)


def test_a_bento_serves_its_own_whatever_is_on_the_volume(bento: Path, volume: Volume) -> None:
    make_entry(volume.folder, "mine:eeeeeeeeeeee")
    make_entry(volume.folder, "sdxl:eeeeeeeeeeee")
    assert served("", "", bento, volume) == (OLD, *BUILT_IN)
    assert served("", OLD, bento, volume) == (OLD, *BUILT_IN)
    assert served("mine:latest", OLD, bento, volume) == (NEW, *BUILT_IN)


def test_a_setting_picks_from_the_volume_what_a_bento_has_not(bento: Path, volume: Volume) -> None:
    make_entry(volume.folder, THEIRS)
    assert served("theirs", OLD, bento, volume) == (THEIRS, *THERE)
    with pytest.raises(ModelError, match="No model other is in the store"):
        served("other", OLD, bento, volume)


@pytest.mark.parametrize("where", ["folder", "empty_bento"])
def test_a_volumes_model_comes_before_the_local_stores(
    request: pytest.FixtureRequest, where: str, volume: Volume
) -> None:
    folder = request.getfixturevalue(where)
    argument = "mounted" if where == "empty_bento" else ""
    local = LOCAL if argument else BUILT_IN
    assert served("mine", argument, folder, volume) == (NEW, *local)
    make_entry(volume.folder, "mine:eeeeeeeeeeee")
    assert served("mine", argument, folder, volume) == ("mine:eeeeeeeeeeee", *THERE)
    assert served(OLD, argument, folder, volume) == (OLD, *local)
    # The only one, whatever its name; `sdxl` of several.
    assert served("", argument, folder, volume) == ("mine:eeeeeeeeeeee", *THERE)
    make_entry(volume.folder, THEIRS)
    with pytest.raises(ModelError) as caught:
        served("", argument, folder, volume)
    assert str(caught.value) == (
        f"LPW_SDXL_STORE names {volume.folder}, which has the models mine, theirs and no "
        "sdxl:latest; name one of them in LPW_SDXL_MODEL."
    )
    make_entry(volume.folder, "sdxl:eeeeeeeeeeee")
    assert served("", argument, folder, volume) == ("sdxl:eeeeeeeeeeee", *THERE)


def test_a_plain_build_beside_a_volume_makes_a_bento_that_looks_for_its_model(
    folder: Path, volume: Volume, tmp_path: Path
) -> None:
    make_entry(volume.folder, THEIRS)
    assert served("", "", folder, volume) == (THEIRS, *THERE)  # and so the bento holds none
    (tmp_path / "bento.yaml").write_text("services: [{name: S, models: []}]")
    assert served("", "", folder, volume) == (THEIRS, *THERE)
    with pytest.raises(ModelError, match="No model sdxl:latest is in the store"):
        served("", "", folder, None)


def test_a_build_with_a_tag_takes_it_from_the_store_that_bentos_carry_models_from(
    folder: Path, volume: Volume
) -> None:
    make_entry(volume.folder, NEW)
    assert served("", NEW, folder, volume) == (NEW, *BUILT_IN)
    make_entry(volume.folder, THEIRS)
    with pytest.raises(ModelError, match=f"No model {THEIRS} is in the store, which has"):
        served("", THEIRS, folder, volume)


def test_while_a_bento_without_a_model_is_built_none_is_needed(folder: Path) -> None:
    assert served("", "mounted", folder, None) == ("mounted", *LOCAL)


@pytest.mark.usefixtures("store_home")
def test_nothing_anywhere_is_answered_with_the_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    volume = open_volume(tmp_path / "volume")
    with pytest.raises(ModelError) as caught:
        served("", "", folder, volume)
    assert str(caught.value) == (
        f"No model is in {tmp_path / 'volume'}, which LPW_SDXL_STORE names; fill it with `python "
        "model_import.py demo` or `python model_import.py checkpoint FILE`."
    )
    make_entry(tmp_path / "volume", THEIRS)
    with pytest.raises(ModelError, match=r"No model mine is in .* which has theirs; name one"):
        served("mine", "", folder, volume)


@pytest.mark.usefixtures("store_home")
def test_a_lora_is_no_model_to_serve(folder: Path, tmp_path: Path) -> None:
    make_entry(tmp_path / "volume", "lora-a:bb")
    with pytest.raises(ModelError, match="lora-a is the tag of a LoRA"):
        served("lora-a", "", folder, open_volume(tmp_path / "volume"))
