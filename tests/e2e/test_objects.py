"""Manifests become living objects."""

import uuid

import pytest

from bus import Failed


@pytest.mark.remote
def test_a_prototype_becomes_an_object_with_slots_and_methods(bus):
    state = bus.state("account")
    assert state["name"] == "account"
    assert isinstance(state["state"]["balance"], int)
    assert "balance + n" in state["methods"]["deposit:"]
    assert state["parents"], "its traits are its parent"
    assert state["rev"] >= 1


@pytest.mark.remote
def test_an_object_is_found_by_name_and_by_id(bus):
    by_name = bus.state("account")
    assert bus.state(by_name["object"]) == by_name


@pytest.mark.remote
def test_apply_makes_an_object_and_older_generations_are_refused(bus):
    name = f"lamp-{uuid.uuid4().hex[:8]}"

    def apply(generation, watts):
        definition = {
            "slots": [{"name": "watts", "value": watts}, {"name": "double", "method": "double = ( ^watts * 2 )"}]
        }
        fields = {"definition": definition, "uid": "u", "generation": generation, "term": 1}
        return bus.command(name, "apply", fields, cls="adm")

    apply(2, 40)
    assert bus.send(name, "double")["value"] == 80
    with pytest.raises(Failed) as failed:
        apply(1, 60)
    assert failed.value.kind == "stale"
    assert bus.send(name, "double")["value"] == 80
    apply(3, 60)
    assert bus.send(name, "double")["value"] == 120


@pytest.mark.remote
def test_applying_the_same_definition_again_keeps_what_lives(bus):
    name = f"lamp-{uuid.uuid4().hex[:8]}"
    fields = {"definition": {"slots": [{"name": "watts", "value": 40}]}, "generation": 1}
    bus.command(name, "apply", fields, cls="adm")
    bus.send(name, "watts:", 75)
    bus.command(name, "apply", fields, cls="adm")
    assert bus.send(name, "watts")["value"] == 75


@pytest.mark.remote
def test_a_property_is_updated(bus):
    name = f"lamp-{uuid.uuid4().hex[:8]}"
    bus.command(name, "apply", {"definition": {"slots": [{"name": "watts", "value": 40}]}}, cls="adm")
    bus.command(name, "update_property", {"property_name": "watts", "property_value": 60})
    assert bus.state(name)["state"] == {"watts": 60}
