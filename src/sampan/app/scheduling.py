"""The scheduler's settings of a cluster: a file somebody gave, kept with the cluster's data."""

from __future__ import annotations

from pathlib import Path

from sampan.scheduler.plugins import read_settings
from sampan.scheduler.settings import Configuration, SettingsError


def load(given: str, kept: Path) -> Configuration | None:
    """What *given* says, or what was kept of an earlier start; None where neither is there. What is
    given and right is kept. Raises SettingsError."""
    source = Path(given) if given else kept
    if not given and not kept.exists():
        return None
    import yaml  # only who has such a file waits for it

    try:
        text = source.read_text()
        found = read_settings(yaml.safe_load(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise SettingsError(f"{source}: {e}") from e
    except (SettingsError, AttributeError, TypeError) as e:
        raise SettingsError(f"{source}: {e}") from e
    if given:
        kept.write_text(text)
    return found
