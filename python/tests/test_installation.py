"""How the command finds libtorch and the program, and what it says if it does not."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import docre_pretrain as docre
from docre_pretrain import _installation

PACKAGE = Path(docre.__file__).parent
FAKE = Path(__file__).with_name("fake_stream.py")
REPOSITORY = Path(__file__).parents[2]
PROGRAM = '#!/bin/sh\necho "$LD_LIBRARY_PATH|$*"\ngrep SigIgn /proc/self/status\n'


@pytest.fixture
def site(tmp_path):
    """Make a folder as `pip install --target` does: this package with a program, and no torch."""
    shutil.copytree(PACKAGE, tmp_path / "docre_pretrain", ignore=shutil.ignore_patterns("bin"))
    program = tmp_path / "docre_pretrain/bin/docre-pretrain"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return tmp_path


def add_torch(site, version, library="torch/lib/libtorch_cpu.so", package=True):
    (site / "torch").mkdir()
    (site / library).parent.mkdir(parents=True, exist_ok=True)
    (site / library).touch()
    if package:
        (site / "torch/__init__.py").write_text("raise SystemExit('torch was imported')")
    line = f"from typing import Optional\n__version__ = '{version}'\ndebug = False\n"
    (site / "torch/version.py").write_text(line)


def start(site, *arguments, **variables):
    """Run `python -m docre_pretrain`, without the packages of this Python."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), **variables}
    command = [sys.executable, "-S", "-m", "docre_pretrain", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")


def refused(site, **variables):
    done = start(site, **variables)
    assert (done.returncode, done.stdout) == (74, "")
    error, nothing, hint = done.stderr.splitlines()
    assert error.startswith("error: ") and hint.startswith("hint: ") and not nothing
    return f"{error} {hint}"


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0+cpu", "2.11.3+cu130"])
def test_the_command_becomes_the_program_with_the_libtorch_of_this_python(site, version):
    add_torch(site, version)
    done = start(site, "run", "my file.toml")
    libraries, status = done.stdout.splitlines()
    assert libraries == f"{site}/torch/lib|run my file.toml", done.stderr
    # Python ignores these signals, the program must not.
    ignored = int(status.split()[1], 16)
    assert not ignored & (1 << 12) and not ignored & (1 << 24)
    other = start(site, LD_LIBRARY_PATH="/other").stdout.splitlines()[0]
    assert other == f"{site}/torch/lib:/other|"


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("2.10.1+cpu", "is torch 2.10.1+cpu"),
        ("2.12.0", "is torch 2.12.0"),
        ("2.110.0", "is torch 2.110.0"),
        ("", "is torch of unknown version"),
    ],
)
def test_another_torch_is_refused_by_name(site, version, found):
    add_torch(site, version)
    said = refused(site)
    assert "torch 2.11 is needed" in said and found in said
    assert "pip install 'torch==2.11.*'" in said


def test_a_missing_torch_is_one_sentence(site):
    assert "has no torch, which is needed hint: pip install" in refused(site)
    add_torch(site, "2.11.0", package=False)
    assert "has no torch" in refused(site)


def test_a_torch_without_its_library_is_one_sentence(site):
    add_torch(site, "2.11.0", library="torch/lib/other.so")
    assert "holds no libtorch_cpu.so" in refused(site)


def test_condas_libraries_are_found_in_the_environments_folder(site, monkeypatch):
    add_torch(site, "2.11.0", library="lib/libtorch_cpu.so")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "prefix", str(site))
    monkeypatch.syspath_prepend(str(site))
    assert _installation.find_libtorch() == site / "lib"


def test_a_program_that_is_missing_or_cannot_run_is_one_sentence(site):
    add_torch(site, "2.11.0")
    program = site / "docre_pretrain/bin/docre-pretrain"
    program.chmod(0o644)
    assert "chmod +x" in refused(site)
    program.unlink()
    assert "installed without its program" in refused(site)
    assert "no program at /nowhere" in refused(site, DOCRE_BINARY="/nowhere")
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    done = start(site)
    assert done.returncode == 74 and "the program cannot be started" in done.stderr


def test_a_named_program_finds_libtorch_by_itself(site):
    done = start(site, "--version", DOCRE_BINARY=str(FAKE))
    assert done.stdout == "docre-pretrain 0.0.0 (a stand-in)\n", done.stderr


def test_the_release_of_torch_is_the_same_everywhere():
    release = re.escape(_installation.TORCH)
    build, project = ((REPOSITORY / name).read_text() for name in ("build.rs", "pyproject.toml"))
    assert re.search(rf'LIBTORCH_VERSION: &str = "{release}\.\d+"', build)
    assert re.search(rf'dependencies = \["torch=={release}\.\*"\]', project)


def test_torch_is_never_imported():
    code = "import sys, docre_pretrain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_version_is_that_of_the_program():
    manifest = (REPOSITORY / "Cargo.toml").read_text()
    assert f'version = "{docre.__version__}"' in manifest
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = docre.nothing


def test_the_page_that_a_package_index_shows_links_to_no_file_of_the_sources():
    page = importlib.metadata.metadata("docre-pretrain").json["description"]
    assert "## A first prediction" in page
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert all(target.startswith("https://") for target in targets), targets


def test_run_returns_what_a_verb_prints_and_raises_what_it_says(capfd):
    assert docre.run("--version", binary=FAKE) == "docre-pretrain 0.0.0 (a stand-in)\n"
    with pytest.raises(docre.ProcessError) as caught:
        docre.run("fail", "75", binary=FAKE)
    error = caught.value
    assert (str(error), error.code) == ("it went wrong; hint: do something else", 75)
    assert "warning: it will not go well" in capfd.readouterr().err
    with pytest.raises(docre.ProcessError):
        docre.run("fail", "75", binary=FAKE, quiet=True)
    assert capfd.readouterr().err == ""


def test_run_keeps_the_ranks_of_a_launcher(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert '"RANK": "1"' in docre.run("environment", binary=FAKE)
