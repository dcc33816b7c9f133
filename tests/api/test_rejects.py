"""Refused items over HTTP."""

from pulsewatch.submissions import Refusal, Rejected
from tests.api.conftest import Api, World


def refused(client: str | None, code: str = "naive_time") -> Rejected:
    return Rejected(7, Refusal(code, "/occurred_at", "The time needs an offset."), client)


def test_a_refused_item_is_shown_with_its_reason_and_text(world: World, admin: Api, slug: str) -> None:
    admin.put(f"/v1/clients/{slug}", {})
    world.store(rejected=[refused(slug)])

    (item,) = admin.get("/v1/rejects", client=slug).json()["items"]

    assert item.pop("received_at").endswith("Z")
    assert item == {
        "client": slug,
        "key_id": None,
        "source": "native",
        "code": "naive_time",
        "pointer": "/occurred_at",
        "detail": "The time needs an offset.",
        "item": '{"item": 7}',
    }


def test_rejects_are_filtered_by_code_source_and_time_and_paged(world: World, admin: Api, slug: str) -> None:
    admin.put(f"/v1/clients/{slug}", {})
    for number in range(5):
        world.store(rejected=[refused(slug, f"code_{number}")])
    world.store(rejected=[refused(slug, "code_5")], source="openlineage")

    def codes(**params: str) -> list[str]:
        return [item["code"] for item in admin.get("/v1/rejects", client=slug, **params).json()["items"]]

    first = admin.get("/v1/rejects", client=slug, limit=4).json()
    rest = admin.get("/v1/rejects", client=slug, limit=4, cursor=first["next_cursor"]).json()
    seen = [item["code"] for item in first["items"] + rest["items"]]
    assert seen == ["code_5", "code_4", "code_3", "code_2", "code_1", "code_0"]
    assert rest["next_cursor"] is None
    assert codes(code="code_2") == ["code_2"]
    assert codes(source="openlineage") == ["code_5"]
    assert codes(to="2026-01-01T00:00:00Z") == []
    assert len(codes(**{"from": "2026-01-01T00:00:00Z"})) == 6


def test_a_reject_of_no_known_client_is_shown_to_an_unbound_key_only(world: World, admin: Api, slug: str) -> None:
    admin.put(f"/v1/clients/{slug}", {})
    world.store(rejected=[refused(None, "of_nobody")])

    assert len(admin.get("/v1/rejects", code="of_nobody").json()["items"]) == 1
    assert world.caller("read", slug).get("/v1/rejects", code="of_nobody").json()["items"] == []
