"""Are the presets right for the tables of their projects, before and after the worker gives up?"""

from typing import Any

import pytest

from dlq_pipelines.outbox.mapping import (
    DEFAULT_PRESET,
    PRESET_FOLDER,
    list_presets,
    load_mapping,
    read_preset,
)
from dlq_pipelines.outbox.mapping_sql import MappingSql
from dlq_pipelines.outbox.mapping_types import (
    CANONICAL_COLUMNS,
)
from dlq_pipelines.postgres.connect import Connection, Database
from tests.outbox.table_shapes import name_table, read_shape, render_for, write_select

# Presets whose worker can be made to take an event again.
RETRIED = {name for name in list_presets() if load_mapping(name).retry}
READ_ONLY = {"axon", "laravel-failed-jobs", "masstransit"}
ERRORS = {
    "axon": "KeyError: x",
    "cap": "KeyError-->x",
    "graphile-worker": "KeyError: x",
    "laravel-failed-jobs": "KeyError: x",
    "masstransit": "KeyError: x",
    "namastack": "KeyError: x",
    "oban": "KeyError: x",
    "river": "KeyError: x",
    "wolverine": "KeyError: x",
}
EVENT_TYPES = {"gruelbox": None, "masstransit": None, "graphile-worker": "1"}
ATTEMPTS = {
    "axon": None,
    "cap": 50,
    "django-outbox-pattern": 50,
    "graphile-worker": 25,
    "laravel-failed-jobs": None,
    "masstransit": 1,
    "namastack": 3,
    "namastack-0": 3,
    "oban": 20,
    "river": 25,
    "spring-modulith": 3,
    "wolverine": None,
}


def test_the_default_is_the_first_preset() -> None:
    assert list_presets()[0] == DEFAULT_PRESET == "dispatchbox"
    assert len(list_presets()) == len(set(list_presets())) == 16
    assert set(list_presets()) - RETRIED == READ_ONLY


@pytest.mark.parametrize("preset", list_presets())
def test_a_preset_names_its_source_and_what_a_retry_sets(preset: str) -> None:
    comment = " ".join(read_preset(preset).split("\n\n")[0].split())
    assert "# Source: " in comment
    assert "retry" in comment
    assert all(len(line) <= 100 for line in read_preset(preset).splitlines())


def test_presets_are_inside_of_the_package() -> None:
    assert PRESET_FOLDER.parts[-3:] == ("dlq_pipelines", "outbox", "presets")


@pytest.mark.parametrize("preset", list_presets())
def test_an_event_is_dead_after_its_worker_gave_up(empty_database: Database, preset: str) -> None:
    shape = read_shape(preset)
    with empty_database.connect() as connection:
        rendered = create_shape(connection, preset)
        watch_deaths(connection, rendered)
        if "write" in shape:
            connection.execute(shape["write"])
            (row,) = read_view(connection, rendered)
            assert not any(row[name] for name in ("dead", "delivered", "working"))
            assert row["waiting"] is True
        connection.execute(shape["give up"])
        (row,) = read_view(connection, rendered)
        assert row["dead"] is True
        assert row["waiting"] is False
        assert not row["delivered"]
        assert_values(row, preset)
        assert list_deaths(connection) == [str(row["id"])]


def assert_values(row: dict[str, Any], preset: str) -> None:
    assert row["event_type"] == EVENT_TYPES.get(preset, "order.placed")
    assert row["attempts"] == ATTEMPTS.get(preset, 5)
    assert row["error"] == ERRORS.get(preset)
    mapping = load_mapping(preset)
    if mapping.aggregate_id is not None:
        assert row["aggregate_id"] == "7"
        assert row["aggregate_type"] in {"order", mapping.table}
    for name in ("due_at", "created_at", "died_at"):
        assert (row[name] is None) == (
            getattr(mapping, name) is None or (preset, name) == ("procrastinate", "due_at")
        )
    assert (row["payload"] is None) == (mapping.payload is None)


@pytest.mark.parametrize("preset", sorted(RETRIED))
def test_its_worker_takes_a_retried_event(empty_database: Database, preset: str) -> None:
    shape = read_shape(preset)
    with empty_database.connect() as connection:
        rendered = create_shape(connection, preset)
        connection.execute(shape.get("write", "select 1"))
        connection.execute(shape["give up"])
        assert connection.execute(shape["take"]).rowcount == 0
        release(connection, rendered, "now()")
        (row,) = read_view(connection, rendered)
        assert row["dead"] is False
        assert row["waiting"] is True
        assert row["attempts"] in {0, None}
        assert connection.execute(shape["take"]).rowcount == 1
        (row,) = read_view(connection, rendered)
        assert not row["dead"]
        assert not row["delivered"]
        is_visible = rendered.mapping.working is not None
        assert (row["working"], row["waiting"]) == (is_visible, not is_visible)
        assert connection.execute(shape["deliver"]).rowcount == 1
        rows = read_view(connection, rendered)
        assert [row["delivered"] for row in rows] in ([True], [])
        assert rows or rendered.mapping.deleted_is_delivered


@pytest.mark.parametrize("preset", sorted(RETRIED))
def test_a_worker_waits_for_the_due_time_where_pace_is_offered(
    empty_database: Database, preset: str
) -> None:
    shape = read_shape(preset)
    with empty_database.connect() as connection:
        rendered = create_shape(connection, preset)
        connection.execute(shape.get("write", "select 1"))
        connection.execute(shape["give up"])
        release(connection, rendered, "now() + interval '1 hour'")
        taken = connection.execute(shape["take"]).rowcount
        assert taken == (0 if rendered.find_offer("pace").is_offered else 1)


def create_shape(connection: Connection, preset: str) -> MappingSql:
    connection.execute(read_shape(preset)["create"])
    return render_for(connection, load_mapping(preset))


def read_view(connection: Connection, rendered: MappingSql) -> list[dict[str, Any]]:
    rows = connection.execute(write_select(rendered)).fetchall()
    assert all(list(row)[: len(CANONICAL_COLUMNS)] == list(CANONICAL_COLUMNS) for row in rows)
    return rows


def release(connection: Connection, rendered: MappingSql, due: str) -> None:
    connection.execute(
        f"update {name_table(rendered.mapping)} o set {rendered.release_assignments(due)} "
        f"where {rendered.condition('dead')}"
    )


def watch_deaths(connection: Connection, rendered: MappingSql) -> None:
    """Create triggers as an installation does: one without search path, with conditions."""
    table = name_table(rendered.mapping)
    connection.execute(
        f"""
        create table seen (id text, error text, died_at timestamptz);
        create function note_death() returns trigger language plpgsql security definer
        set search_path = '' as $$ begin
            insert into public.seen
            values ({rendered.expression("id", "new")}::pg_catalog.text,
                    {rendered.expression("error", "new")}, {rendered.expression("died_at", "new")});
            return null;
        end $$;
        create trigger inserted after insert on {table} for each row
        when ({rendered.condition("dead", "new")}) execute function note_death();
        create trigger updated after update on {table} for each row
        when ({rendered.condition("dead", "new")}
              and {rendered.condition("dead", "old")} is not true)
        execute function note_death();
        create trigger deleted after delete on {table} for each row
        when ({rendered.condition("waiting", "old")}) execute function note_death()
        """
    )


def list_deaths(connection: Connection) -> list[str]:
    return [row["id"] for row in connection.execute("select id from seen").fetchall()]
