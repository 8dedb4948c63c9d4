"""`softmax download`."""

from pathlib import Path

import click

from softmax_cli.cli import options


@click.command()
@click.argument("name", default="mnist", required=False)
@options.mirror
@options.data
@options.as_json
def command(name: str, mirrors: tuple[str, ...], data_dir: Path | None, offline: bool, as_json: bool) -> None:
    """Download mnist or fashion-mnist into the cache and verify it.

    \b
    Example:
      softmax download fashion-mnist
    """
    from softmax_cli.data.cache import ensure, verified
    from softmax_cli.data.catalog import CATALOG
    from softmax_cli.errors import ConfigError

    entry = CATALOG.get(name)
    if entry is None or entry.bundled:
        known = ", ".join(key for key, value in CATALOG.items() if value.mirrors)
        raise ConfigError(f"unknown data set {name!r}; available for download: {known}")
    source = options.make_source(data_dir, offline, mirrors)
    ensure(entry, source)
    for file in entry.files:
        verified(entry, file.name, source)
    folder = source.cache / entry.name
    if as_json:
        import json

        result = {"dataset": name, "folder": str(folder), "files": [file._asdict() for file in entry.files]}
        click.echo(json.dumps(result))
    else:
        click.echo(
            f"{entry.title} is in {folder}: {len(entry.files)} files, SHA-256 verified ({entry.credit})"
        )
