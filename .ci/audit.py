"""Known vulnerabilities in what is locked: none, and nothing left out.

pip-audit asks PyPI for the advisories of each release. A mirror may serve those of the newest releases alone
(https://docs.pypi.org/api/json/): then these are read here, and what is not locked at its newest release is named
as not audited. Neither is believed before it told a vulnerable release that there has been for years.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

LOCKS = sorted(Path(__file__).parent.glob("*.lock"))
VULNERABLE = ("pycrypto", "2.6.1")


def main() -> int:
    """Give the exit code: 1 where a vulnerability is known."""
    if advisories(*VULNERABLE):
        audit = [sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--no-deps"]
        return max(subprocess.run([*audit, "-r", str(lock)], check=False).returncode for lock in LOCKS)  # noqa: S603
    if not newest_advisories(*VULNERABLE):
        print("NOT AUDITED: pypi.org does not give its advisories here")
        return 0
    pinned = {
        release for lock in LOCKS for release in re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE)
    }
    found = {f"{name} {version}": newest_advisories(name, version) for name, version in sorted(pinned)}
    skipped = [release for release, known in found.items() if known is None]
    known = {release: ids for release, ids in found.items() if ids}
    print(f"Audited {len(found) - len(skipped)} releases: {known or 'no known vulnerability'}")
    print(f"Not the newest, so not audited here: {', '.join(skipped) or 'none'}")
    return 1 if known else 0


def advisories(name: str, version: str) -> list[str] | None:
    """The ids of the release's advisories, None where they are not served."""
    return ids_in(asked(f"{name}/{version}"))


def newest_advisories(name: str, version: str) -> list[str] | None:
    """Likewise, where it is the newest release."""
    answer = asked(name)
    return ids_in(answer) if answer is not None and answer["info"]["version"] == version else None


def ids_in(answer: dict[str, Any] | None) -> list[str] | None:
    """The advisories that were not taken back."""
    return None if answer is None else [each["id"] for each in answer["vulnerabilities"] if not each.get("withdrawn")]


def asked(path: str) -> dict[str, Any] | None:
    """What PyPI says, None where it says nothing."""
    try:
        with urllib.request.urlopen(f"https://pypi.org/pypi/{path}/json", timeout=60) as answer:
            said: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, TimeoutError):
        return None
    return said


if __name__ == "__main__":
    sys.exit(main())
