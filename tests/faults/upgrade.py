"""An upgrade, as a later release may bring one: it touches every page of the jobs, and adds to the schema."""

from __future__ import annotations

from jobhistory.storage import sqlite

_NEWER = """
ALTER TABLE jobs ADD COLUMN newer TEXT;
UPDATE jobs SET newer = status WHERE change % 3 > 0;
CREATE INDEX jobs_newer ON jobs (newer, error);
CREATE TABLE newer (x INTEGER) STRICT;
"""
UPGRADED = (*sqlite._SCHEMAS, ("newer", _NEWER))
"""Every migration, and this one."""
