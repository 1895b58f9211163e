"""Puts the program into the wheel, and the oldest glibc that it runs with into the wheel's tag."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WHERE = "target/wheel/docre-pretrain"


def needed_glibc(binary: Path) -> int:
    """Return the N of the newest GLIBC_2.N that the program asks for."""
    command = ["readelf", "--version-info", "--wide", str(binary)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return max(int(number) for number in re.findall(r"Name: GLIBC_2\.(\d+)", said))


class ProgramHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the program to a wheel; an editable install goes without and needs DOCRE_BINARY."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the file that is added, and the wheel's tag."""
        if version == "editable":
            return
        binary = Path(self.root, WHERE)
        if not os.access(binary, os.X_OK):
            raise SystemExit(f"error: no program at {binary}; hint: run `make wheel`")
        build_data["force_include"][str(binary)] = "docre_pretrain/bin/docre-pretrain"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_{needed_glibc(binary)}_x86_64"
