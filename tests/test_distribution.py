"""The distribution is what is imported, whole: its packages have common names that another one might shadow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("mediaserver", "admin", "tenancy", "admission", "config", "vault", "sipbridge", "perf")
NAME = "ai-receptionist-mediaserver"


def test_the_build_takes_exactly_these_packages() -> None:
    assert PROJECT["project"]["name"] == NAME
    assert set(PROJECT["tool"]["maturin"]["python-packages"]) == set(PACKAGES)
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert found == set(PACKAGES)


def test_the_packages_lie_next_to_each_other() -> None:
    places = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None, f"{package} is a namespace package: its __init__.py is missing"
        places[package] = Path(spec.origin).resolve().parents[1]
    assert len(set(places.values())) == 1, places


def test_no_other_distribution_brings_one_of_our_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, [])) <= {NAME}, f"{package} is also in {owners[package]}"


def test_this_distribution_is_the_installed_one() -> None:
    distribution = importlib.metadata.distribution(NAME)
    assert distribution.version == PROJECT["project"]["version"]
    (command,) = [entry for entry in distribution.entry_points if entry.name == "mediaserver"]
    assert command.value == PROJECT["project"]["scripts"]["mediaserver"]


def test_every_package_is_typed() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file(), package


@pytest.mark.skipif("MEDIASERVER_WHEEL" not in os.environ, reason="MEDIASERVER_WHEEL names no built wheel")
def test_a_built_wheel_has_the_packages_and_their_data_and_nothing_else() -> None:
    with zipfile.ZipFile(os.environ["MEDIASERVER_WHEEL"]) as wheel:
        names = [PurePosixPath(name) for name in wheel.namelist()]
    tops = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert tops == set(PACKAGES)
    inside = {str(name) for name in names}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".pyi", ".yaml", ".json", ".typed", ".html", ".js", ".css"):
                assert str(path.relative_to(ROOT)) in inside
    assert any(name.startswith("mediaserver/_native") and name.endswith(".so") for name in inside)
    assert not [name for name in inside if name.endswith((".pyc", ".db", ".wav")) or "/tests/" in name]
