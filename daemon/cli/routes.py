"""`inferd routes`: creates, lists, shows and removes the routes of a tenant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from inferd.daemon.cli.options import Target, broker_options, settings_options
from inferd.daemon.cli.output import OutputFormat, report, write_json, write_result, write_table
from inferd.daemon.cli.predict.command import OUTPUTS_HELP, parse_outputs
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.cli.times import parse_earlier
from inferd.daemon.printable import printable
from inferd.daemon.settings import Settings
from inferd.daemon.value_view import view_of
from inferd.schemas.requests import DEFAULT_OUTPUTS, Scalar
from inferd.schemas.routes import (
    Format,
    Mode,
    OnError,
    Route,
    RouteNotFoundError,
    Sink,
    Source,
    Subjects,
    Tombstones,
    parse_path,
)

if TYPE_CHECKING:
    from inferd.daemon.route_trial import TriedRecord
    from inferd.routes import Start

LIST_COLUMNS = ("route", "from", "format", "model", "to", "mode", "field", "created")


def _parse_pairs(_ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or name in pairs:
            raise click.BadParameter(f"{text!r}: expected NAME=VALUE, each name once", param=parameter)
        pairs[name] = value if equals else name
    return pairs


def _parse_constants(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Scalar]:
    return {name: _scalar(value) for name, value in _parse_pairs(ctx, parameter, texts).items()}


def _scalar(text: str) -> Scalar:
    """A number, true, false or null as in JSON; any other text is itself."""
    import msgspec

    try:
        value: Scalar = msgspec.json.decode(text, type=float | int | bool | str | None)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    return value


def _parse_start(ctx: click.Context, parameter: click.Parameter, text: str) -> Start:
    """`latest`, `earliest`, a time, or a duration before now."""
    if text == "latest":
        return "latest"
    if text == "earliest":
        return "earliest"
    return parse_earlier(ctx, parameter, text) or "latest"


def _parse_topics(_ctx: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> list[str]:
    return [topic.strip() for text in texts for topic in text.split(",")]


@click.group(
    epilog="Example: inferd routes create orders --from orders.v1 --to orders.scored --format json --model fraud"
    " --feature amount=order.amount --field fraud"
)
def routes() -> None:
    """Score topics that exist, in the format that they have, into other topics.

    Workers process only topics that INFERD_ROUTES_SOURCES and INFERD_ROUTES_SINKS allow (docs/routes.md).
    """


@routes.command(
    epilog="Example: inferd routes create orders --from orders.v1 --to orders.scored --format json --model fraud"
    " --feature amount=order.amount --field fraud"
)
@click.argument("name")
@click.option(
    "--from", "sources", required=True, multiple=True, callback=_parse_topics, metavar="TOPIC[,…]",
    help="Topics to read; may be repeated.",
)  # fmt: skip
@click.option("--to", "sink", required=True, metavar="TOPIC", help="Topic to write; it must exist.")
@click.option(
    "--format", "format_name", required=True, metavar="FORMAT", help="Format of the records: json, msgpack, avro, …"
)
@click.option("--model", required=True, metavar="NAME[:VERSION|@ALIAS]", help="The model that scores the records.")
@click.option(
    "--feature", "features", multiple=True, callback=_parse_pairs, metavar="FEATURE=PATH",
    help="Where a feature is in a record: order.items[0].price, $key, $timestamp, $headers.NAME; may be repeated."
    "  [default: the field of its name at the top]",
)  # fmt: skip
@click.option(
    "--constant", "constants", multiple=True, callback=_parse_constants, metavar="FEATURE=VALUE",
    help="The value of a feature for all records; may be repeated.",
)  # fmt: skip
@click.option("--outputs", callback=parse_outputs, help=OUTPUTS_HELP)
@click.option(
    "--mode", type=click.Choice(get_args(Mode)), default="enrich", show_default=True,
    help="Write the original record plus a field, or the result alone.",
)  # fmt: skip
@click.option("--field", default="prediction", show_default=True, help="The field that is added to a record.")
@click.option(
    "--carry", multiple=True, callback=_parse_pairs, metavar="NAME[=PATH]",
    help="A value of the record that the result has, too (mode result); may be repeated.",
)  # fmt: skip
@click.option(
    "--on-error", type=click.Choice(get_args(OnError)), default="dead-letters", show_default=True,
    help="Where records go that cannot be scored: to dead-letters, or to the sink with the error in the field.",
)  # fmt: skip
@click.option(
    "--tombstones", type=click.Choice(get_args(Tombstones)), default="skip", show_default=True,
    help="What to do with records without a value.",
)  # fmt: skip
@click.option(
    "--start", default="latest", show_default=True, callback=_parse_start, metavar="latest|earliest|TIME",
    help="Where to begin the first time.",
)  # fmt: skip
@click.option(
    "--schema", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the schema of the records, for formats that have one and topics without a schema registry.",
)  # fmt: skip
@click.option(
    "--registry", is_flag=True,
    help="With --schema: the records have the header of a schema registry, which has their schemas; FILE is the schema"
    " in whose terms paths are, with its aliases and defaults.",
)  # fmt: skip
@click.option(
    "--subjects", type=click.Choice(get_args(Subjects)), default="topic", show_default=True,
    help="How the subject of the sink's schema is named in the registry: SINK-value, the name of the record, or both.",
)  # fmt: skip
@click.option("--message", help="The message of a Protobuf schema.")
@click.option(
    "--data", metavar="FORMAT",
    help="With --format cloudevents: the format of the events' data, to which --schema and --registry then apply."
    "  [default: as the content type of each event says]",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="Change the route of this name; it continues at its committed offsets.")
@broker_options
def create(name: str, target: Target, **options: Any) -> None:
    """Create the route NAME. Running workers begin to process it."""
    schema: Path | None = options["schema"]
    source_format = Format(
        options["format_name"],
        schema=None if schema is None else schema.read_text(encoding="utf-8"),
        registry=options["registry"],
        message=options["message"],
        data=options["data"],
    )
    route = Route(
        name=name,
        source=Source(options["sources"], source_format, tombstones=options["tombstones"]),
        model=options["model"],
        sink=Sink(
            options["sink"], options["mode"], options["field"],
            {each: path or each for each, path in options["carry"].items()},
            options["subjects"],
        ),
        features=options["features"],
        constants=options["constants"],
        outputs=None if options["outputs"] == DEFAULT_OUTPUTS else list(options["outputs"]),
        on_error=options["on_error"],
    )  # fmt: skip
    _check_locally(route)

    async def run() -> Route:
        from inferd.daemon.route_schemas import check_route_schemas

        async with target.client() as client:
            for unchecked in await check_route_schemas(client, target.schema_registry, route):
                report(unchecked)
            return await client.create_route(route, start=options["start"], replace=options["replace"])

    created = run_with_broker(target.connection, run)
    write_result(target.output, created, LIST_COLUMNS, [_row(created)])
    report(
        f"workers process it if INFERD_ROUTES_SOURCES and INFERD_ROUTES_SINKS allow its topics; /status says so."
        f" Look at what it writes: inferd routes try {name}"
    )


@routes.command("try", epilog="Example: inferd routes try orders --limit 5")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1_000), default=5, show_default=True, help="Number of records.")
@settings_options()
def try_command(name: str, limit: int, settings: Settings, output: OutputFormat) -> None:
    """Print what the route NAME would write for the latest records of its sources. Writes nothing.

    The models of the tenant are loaded on this machine.
    """
    from inferd.daemon.route_trial import try_route

    if len(settings.tenants) > 1:
        raise click.UsageError(f"several tenants are set ({', '.join(settings.tenants)}): choose one with --tenant")
    streams = settings.streams()
    tried = run_with_broker(streams.connection, lambda: try_route(streams, settings.tenants[0], name, limit))
    if output == "json":
        write_json([_tried_fields(each) for each in tried])
        return
    for each in tried:
        click.echo(printable(f"{each.topic} partition {each.partition} offset {each.offset}, key {_shown(each.key)}"))
        if each.error is not None:
            click.echo(printable(f"  {each.error.code}: {each.error.message}"))
        for header, value in each.headers or ():
            click.echo(printable(f"  {header}: {_shown(value)}"))
        for line in view_of(each.value).lines:
            click.echo(printable(f"  {line}"))
    if not tried:
        report("the sources have no records")


@routes.command("list", epilog="Example: inferd routes list --output json")
@broker_options
def list_routes(target: Target) -> None:
    """List the routes of the tenant."""
    found = _read(target)
    write_result(target.output, found, LIST_COLUMNS, map(_row, found))


@routes.command(epilog="Example: inferd routes show orders")
@click.argument("name")
@broker_options
def show(name: str, target: Target) -> None:
    """Show the route NAME: where each feature comes from, and what is written."""
    route = _named(_read(target), name)
    if target.output == "json":
        write_json(route)
        return
    write_table(("field", "value"), _facts(route))


@routes.command(epilog="Example: inferd routes remove orders")
@click.argument("name")
@broker_options
def remove(name: str, target: Target) -> None:
    """Remove the route NAME. Workers stop processing it; what it has written stays."""

    async def run() -> None:
        async with target.client() as client:
            await client.remove_route(name)

    run_with_broker(target.connection, run)
    write_result(target.output, {"removed": name}, ("removed",), [[name]])


def _tried_fields(tried: TriedRecord) -> dict[str, Any]:
    view = view_of(tried.value)
    fields: dict[str, Any] = {"topic": tried.topic, "partition": tried.partition, "offset": tried.offset}
    fields["key"] = None if tried.key is None else _shown(tried.key)
    fields["value"] = view.value if view.format in ("json", "msgpack") else (tried.value or b"").hex() or None
    if tried.headers is not None:
        fields["headers"] = {name: None if value is None else _shown(value) for name, value in tried.headers}
    if tried.error is not None:
        fields["error"] = {"code": tried.error.code, "message": tried.error.message}
    return fields


def _shown(key: bytes | None) -> str:
    """A key or a header as text, or in hexadecimal digits."""
    if key is None:
        return "none"
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key.hex()


def _check_locally(route: Route) -> None:
    """Raises for an unknown format, and for options or paths that are invalid."""
    from inferd.streams.routes.formats import format_named

    format_named(route.source.format.name).check(route)
    for path in (*route.features.values(), *route.sink.carry.values()):
        parse_path(path)


def _read(target: Target) -> list[Route]:
    async def run() -> list[Route]:
        async with target.client() as client:
            return await client.routes()

    return run_with_broker(target.connection, run)


def _named(found: list[Route], name: str) -> Route:
    for route in found:
        if route.name == name:
            return route
    raise RouteNotFoundError(f"there is no route {name!r}; `inferd routes list` shows what there is")


def _row(route: Route) -> list[object]:
    return [
        route.name,
        ", ".join(route.source.topics),
        route.source.format.name,
        route.model,
        route.sink.topic,
        route.sink.mode,
        route.sink.field if route.sink.mode == "enrich" else None,
        route.created_at,
    ]


def _facts(route: Route) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = list(zip(LIST_COLUMNS, _row(route), strict=True))
    if (data := route.source.format.data) is not None:
        facts.append(("data", data))
    facts += [(f"feature {name}", path) for name, path in route.features.items()]
    facts += [(f"feature {name}", f"always {value!r}") for name, value in route.constants.items()]
    facts += [(f"carried {name}", path) for name, path in route.sink.carry.items()]
    facts += [("outputs", ", ".join(route.outputs or ["prediction"])), ("on error", route.on_error)]
    facts += [("tombstones", route.source.tombstones)]
    for topic, offsets in route.source.start.items():
        facts.append((f"start of {topic}", ", ".join(map(str, offsets))))
    return facts
