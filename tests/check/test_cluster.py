"""`kubectl get … -o json | eplb-launch check -`: each server of a cluster is reported once."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from eplb_launch.check import reader, sources
from eplb_launch.check.command import check

if TYPE_CHECKING:
    from eplb_launch.check.model import Review

EPLB = "-dp 8 --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency"
ARGS = ["m", *EPLB.split()]


def container(*args: str, **more: Any) -> dict[str, Any]:
    words = list(args) or ARGS
    return {"name": "v", "image": "vllm/vllm-openai:v0.16.0", "args": words, **more}


def thing(kind: str, name: str, owner: str = "", **spec: Any) -> dict[str, Any]:
    """Return an object as kubectl prints it, with the fields that the API server adds."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "serving",
        "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "command: vllm serve m"
        },
        "managedFields": [
            {"fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"v"}': {"f:args": {}}}}}}
        ],
    }
    if owner:
        metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": owner, "controller": True}]
    status = {"containerStatuses": [{"name": "v", "image": "vllm/vllm-openai:v0.16.0"}]}
    head = {"apiVersion": "v1", "kind": kind}
    return {**head, "metadata": metadata, "spec": spec, "status": status}


def template(*args: str, **more: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [container(*args, **more)]}}}


def pod(name: str, owner: str, *args: str, **more: Any) -> dict[str, Any]:
    return thing("Pod", name, owner, containers=[container(*args, **more)])


def review(monkeypatch: pytest.MonkeyPatch, *items: dict[str, Any], indent: int = 4) -> Review:
    end = {"kind": "List", "metadata": {"resourceVersion": ""}}
    whole = {"apiVersion": "v1", "items": list(items), **end}
    text = json.dumps(whole, indent=indent)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    found = check(["-"])
    lines = text.split("\n")
    for finding in found.findings:
        assert re.search(r'"m"|serve m', lines[finding.line - 1])
    return found


def names(found: Review) -> list[str]:
    return [finding.name.partition(" ")[0] for finding in found.findings]


@pytest.mark.parametrize("size", [reader.MANY, 0], ids=["as one tree", "item by item"])
@pytest.mark.parametrize("pods_first", [False, True], ids=["owner first", "pods first"])
def test_a_pod_that_repeats_its_owner_is_not_reported(
    monkeypatch: pytest.MonkeyPatch, size: int, pods_first: bool
) -> None:
    monkeypatch.setattr(reader, "MANY", size)
    items = [
        thing("Deployment", "decode", **template()),
        pod("decode-1-a", "decode-1"),
        pod("decode-1-b", "decode-1"),
        pod("decode-0-a", "decode-0", "m", "-dp", "8"),  # from an older template
        thing("Pod", "other", containers=[container()]),
    ]
    found = review(monkeypatch, *(reversed(items) if pods_first else items))
    expected = ["Deployment/decode", "Pod/decode-0-a", "Pod/other"]
    assert sorted(names(found)) == expected
    assert not found.troubles
    assert {one.why for one in found.mentions} == {"an annotation with a copy of the object"}


def test_pods_without_their_owner_are_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = review(monkeypatch, *(pod(f"d-{number}", "d") for number in range(5)))
    assert names(found) == ["Pod/d-0"]


def test_variables_that_a_controller_adds_make_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = {"name": "LWS_GROUP_SIZE", "value": "2"}
    mine = {"name": "A", "value": "b"}
    worker = template(env=[mine])["template"]
    leader = thing("LeaderWorkerSet", "l", leaderWorkerTemplate={"workerTemplate": worker})
    found = review(
        monkeypatch,
        leader,
        thing("StatefulSet", "l-0", "l", **template(env=[size, mine])),
        pod("l-0-1", "l-0", env=[mine, size]),
        pod("l-0-2", "l-0", env=[size, {"name": "A", "value": "c"}]),
    )
    assert names(found) == ["LeaderWorkerSet/l", "Pod/l-0-2"]


def test_another_namespace_or_image_makes_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    other = pod("b", "x")
    other["metadata"]["namespace"] = "elsewhere"
    newer = pod("c", "x", image="vllm/vllm-openai:v0.15.0")
    assert names(review(monkeypatch, pod("a", "x"), other, newer)) == ["Pod/a", "Pod/b", "Pod/c"]


def test_a_repeated_line_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"command": ["bash", "-c", f"exec vllm serve m {EPLB}"], "args": ["m"]}
    items = [pod(name, "x", **words) for name in "ab"]
    for item in items:
        del item["metadata"]["annotations"]
    [again] = review(monkeypatch, *items).mentions
    assert again.why == "it repeats its owner or another object of that owner"


@pytest.mark.parametrize(
    "text",
    [
        '{"items": [{"a": 1},',
        '{"items": [{"a": 1} {"b": 2}]}',
        '{"items": []}',
        '{"items": [1]}',
        '{"metadata": {"items": [{"a": 1}]}, "items": []}',
        '{"kind": "Pod"}',
        '{"items": [{"a": ' + "[" * 50_000 + "]}]}",
    ],
    ids=["cut off", "no comma", "empty", "a number", "items in metadata", "no items", "too deep"],
)
def test_json_that_is_no_list_is_read_as_a_whole(text: str) -> None:
    assert reader.items_of(text) is None


def test_items_without_a_hint_are_left_out() -> None:
    kept = '{"image": "vllm/vllm-openai"}'
    text = '{"apiVersion": "v1",\n"items": [\n{"image": "nginx"},\n' + kept + ",\n{}\n]}"
    assert reader.items_of(text) == [(kept, 4)]


def test_input_larger_than_any_cluster_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_INPUT", 300)
    monkeypatch.setattr(sources, "MAX_BYTES", 100)
    for text, problem in (
        ("{" + " " * 400, True),
        ("a: b\n" * 30, True),
        ("{}" + " " * 200, False),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert bool(sources.standard_input(sources.Reach()).problem) == problem
