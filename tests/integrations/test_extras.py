"""An integration whose package is not there says which extra brings it."""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("integration", "package"),
    [
        ("dlt", "dlt"),
        ("openlineage", "openlineage"),
        ("opentelemetry", "opentelemetry"),
        ("prometheus", "prometheus_client"),
        ("singer", "singer_sdk"),
    ],
)
def test_a_missing_package_is_an_error_that_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, integration: str, package: str
) -> None:
    usual = builtins.__import__

    def without(name: str, *rest: Any) -> Any:  # noqa: ANN401  as __import__ has them
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(name=package)
        return usual(name, *rest)

    module = f"jobhistory.integrations.{integration}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(ImportError, match=rf"{module} needs .*: pip install 'jobhistory\[{integration}\]'") as error:
        importlib.import_module(module)
    assert package == error.value.name
