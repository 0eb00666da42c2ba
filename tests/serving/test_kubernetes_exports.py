"""An endpoint as the Gateway API and KServe take it. Pure: no cluster is asked."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from hardening import EVERYWHERE, Rule, images_are_named_by_digest
from modelyard_serving.endpoints import POD_PORT, Deployment, Endpoint, Shadow
from modelyard_serving.errors import Refused
from modelyard_serving.gateway.listener import OURS
from modelyard_serving.gateway.routes import addresses
from modelyard_serving.kubernetes.exports import Export, export
from modelyard_serving.kubernetes.forms import Form, To
from modelyard_serving.kubernetes.objects import SELECTOR, Place, label
from rendering import Workload, workloads

HERE = Path(__file__).parent
SCHEMAS = {
    kind: jsonschema.Draft202012Validator(yaml.safe_load((HERE / f"{kind.lower()}.schema.yaml").read_text()))
    for kind in ("HTTPRoute", "InferenceService")
}
PLACE = Place("modelyard", pull_secret="registry-login")
# Of a predictor, what is KServe's own and not a pod's.
KSERVES = ("minReplicas", "maxReplicas", "timeout", "deploymentStrategy")
Json = dict[str, Any]


def deployed(version: int, model: str = "tumor") -> Deployment:
    image = f"registry.example/team/{model}@sha256:{version:064x}"
    name = f"{model}-{version}"
    return Deployment(
        name, model, version, f"{model}:{version}-x", "b" * 64, "", "", (), "m" * 64, image, 2, f"{name}.svc", 512
    )


def endpoint(*variants: str, model: str = "tumor", **shares: float) -> Endpoint:
    """Its variants are the model's versions 1, 2, ...; the first one answers, unless shares say otherwise."""
    made = Endpoint.first(model, variants[0], f"{model}-1")
    for version, variant in enumerate(variants[1:], 2):
        made = made.with_variant(variant, f"{model}-{version}")
    return made.split(shares) if shares else made


TUMOR = endpoint("champion", "challenger", champion=80, challenger=20)


def exported(found: Endpoint, form: Form, to: To = To.MODELS, gateway: str = "gateway", **changed: Any) -> Export:
    deployments = {
        name: replace(deployed(int(name.rpartition("-")[2]), found.name), **changed) for name in found.variants.values()
    }
    return export(found, deployments, PLACE, form, to, gateway)


def routes(found: Endpoint = TUMOR, **more: Any) -> list[Json]:
    return list(exported(found, Form.HTTPROUTE, **more).documents)


def services(found: Endpoint = TUMOR, **more: Any) -> list[Json]:
    return list(exported(found, Form.INFERENCESERVICE, **more).documents)


def rules(found: Endpoint = TUMOR) -> list[Json]:
    return [rule for route in routes(found) for rule in route["spec"]["rules"]]


def check(document: Json, kind: str = "") -> None:
    kind = kind or document["kind"]
    SCHEMAS[kind].validate(document)
    if kind == "HTTPRoute":
        assert sum(len(rule["matches"]) for rule in document["spec"]["rules"]) <= 128  # CEL's, over all rules
    else:
        kubernetes_validate.validate(as_deployment(document), str(kubernetes_validate.latest_version()), strict=True)


def as_deployment(service: Json) -> Json:
    """What KServe makes of it, as far as it matters here."""
    predictor = service["spec"]["predictor"]
    labels = {"serving.kserve.io/inferenceservice": service["metadata"]["name"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{service['metadata']['name']}-predictor"},
        "spec": {
            "replicas": predictor["minReplicas"],
            "selector": {"matchLabels": labels},
            "strategy": predictor["deploymentStrategy"],
            "template": {
                "metadata": {"labels": labels},
                "spec": {key: value for key, value in predictor.items() if key not in KSERVES},
            },
        },
    }


def the_pod() -> Workload:
    [found] = workloads("kserve", [as_deployment(services()[0])])
    return found


MANY = endpoint(*(f"v{number}" for number in range(1, 8)))
LONG = endpoint("champion", "Challenger_2", model="House_Prices-" + "x" * 60)


@pytest.mark.parametrize("found", [TUMOR, MANY, LONG, endpoint("staging")], ids=["two", "many", "long", "staging"])
def test_every_field_is_one_that_the_gateway_api_and_kserve_know(found: Endpoint) -> None:
    documents = [*routes(found), *routes(found, to=To.GATEWAY), *services(found)]
    for document in documents:
        check(document)
    names = [(document["kind"], document["metadata"]["name"]) for document in [*routes(found), *services(found)]]
    assert len(set(names)) == len(names)


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in pairs:
        if isinstance(document, dict):
            yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


@pytest.mark.parametrize("document", [routes()[0], services()[0]], ids=lambda document: document["kind"])
def test_no_misspelt_field_goes_unnoticed(document: Json) -> None:
    free = {"annotations", "matchLabels", "requests", "limits"}  # whose names are anybody's
    tried = set()
    for way in places(document):
        named = tuple(key for key in way if isinstance(key, str))
        if named in tried or free & set(named[:-1]):
            continue
        broken = copy.deepcopy(document)
        parent: Any = broken
        for key in way[:-1]:
            parent = parent[key]
        parent[f"{way[-1]}x"] = parent.pop(way[-1])
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            check(broken, document["kind"])
        tried.add(named)
    assert len(tried) > 25


def test_who_names_a_variant_in_the_header_gets_it_at_every_address() -> None:
    found = {
        (match["path"]["value"], header["value"]): rule
        for rule in rules()
        for match in rule["matches"]
        for header in match.get("headers", ())
    }
    wanted = {(address.path, variant) for address in addresses("tumor") for variant in ("champion", "challenger")}
    assert set(found) == wanted
    for (_, variant), rule in found.items():
        assert rule["backendRefs"] == [{"name": label(TUMOR.variants[variant]), "port": POD_PORT}]


def test_all_others_are_shared_out_as_the_split_says() -> None:
    shared = [rule for rule in rules() if all("headers" not in match for match in rule["matches"])]
    assert [match["path"]["value"] for rule in shared for match in rule["matches"]] == [
        address.path for address in addresses("tumor")
    ]
    assert rules()[-len(shared) :] == shared
    for rule in shared:
        assert {each["name"]: each["weight"] for each in rule["backendRefs"]} == {"tumor-1": 4, "tumor-2": 1}


@pytest.mark.parametrize("share", [50, 12.5, 0.01, 33.33, 0])
def test_weights_are_whole_numbers_in_the_proportion_of_the_buckets(share: float) -> None:
    found = TUMOR.split({"champion": 100 - share, "challenger": share})
    weights = {each["name"]: each["weight"] for each in rules(found)[-1]["backendRefs"]}
    assert gcd(*weights.values()) == 1
    shares = {found.variants[variant]: part for variant, part in found.table.shares().items()}
    assert weights.keys() == shares.keys()
    for name, weight in weights.items():
        assert weight / sum(weights.values()) == pytest.approx(shares[name])


def test_a_model_is_asked_by_the_name_that_its_runtime_knows() -> None:
    runtime = {address.path: address.runtime for address in addresses("tumor")}
    for rule in rules():
        rewritten = [each["urlRewrite"]["path"]["replaceFullPath"] for each in rule["filters"] if "urlRewrite" in each]
        for match in rule["matches"]:
            path = match["path"]["value"]
            assert (rewritten or [path]) == [runtime[path]]


def test_nobody_can_say_what_only_the_gateway_says() -> None:
    for rule in rules():
        said = rule["filters"][0]["requestHeaderModifier"]
        chosen = {header["name"] for match in rule["matches"] for header in match.get("headers", ())}
        settled = {*said["remove"], *(each["name"] for each in said["set"]), *chosen}
        # The secret is for the model to compare, and a request's id is the other gateway's to give.
        assert set(OURS) - settled == {"x-gateway-secret", "x-request-id"}


def test_no_secret_is_in_a_route() -> None:
    assert "secret" not in yaml.safe_dump_all([*routes(), *routes(to=To.GATEWAY)])


def test_more_rules_than_one_route_may_have_are_several_routes() -> None:
    assert [len(route["spec"]["rules"]) for route in routes(endpoint("a", "b", "c"))] == [16]
    several = routes(MANY)
    assert [len(route["spec"]["rules"]) for route in several] == [16, 16]
    assert [route["metadata"]["name"] for route in several] == ["tumor", "tumor.2"]


def test_as_long_as_nobody_answers_only_the_header_leads_anywhere() -> None:
    assert all("headers" in match for rule in rules(endpoint("staging")) for match in rule["matches"])


def test_a_route_belongs_to_the_gateway_that_is_named() -> None:
    assert routes()[0]["spec"]["parentRefs"] == [{"name": "gateway"}]
    assert routes(gateway="infra/public")[0]["spec"]["parentRefs"] == [{"namespace": "infra", "name": "public"}]


@pytest.mark.parametrize(("timeout_s", "written"), [(30, "30s"), (0.1, "100ms"), (2.5, "2s500ms"), (600, "600s")])
def test_a_timeout_is_written_as_the_gateway_api_has_it(timeout_s: float, written: str) -> None:
    [route] = routes(TUMOR.with_timeout(timeout_s))
    check(route)
    assert {rule["timeouts"]["request"] for rule in route["spec"]["rules"]} == {written}


def test_to_the_gateway_is_one_rule_and_loses_nothing() -> None:
    made = exported(TUMOR, Form.HTTPROUTE, To.GATEWAY)
    [route] = made.documents
    [rule] = route["spec"]["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == ["/v1", "/v2"]
    assert rule["backendRefs"] == [{"name": "gateway", "port": 80}]
    assert made.lost == ()


def test_what_is_lost_is_said() -> None:
    routed = "\n".join(exported(TUMOR, Form.HTTPROUTE).lost)
    for word in ("keys", "unit", "403", "--to gateway"):
        assert word in routed
    shadowed = replace(TUMOR.split({"champion": 1}), shadow=Shadow("challenger"))
    assert "the shadow challenger" in "\n".join(exported(shadowed, Form.HTTPROUTE).lost)
    served = "\n".join(exported(TUMOR, Form.INFERENCESERVICE).lost)
    for word in ("keys", "audit", "challenger 20.00%", "/v2/models/tumor/infer"):
        assert word in served


def test_every_variant_is_a_service_of_its_own_and_says_what_it_is() -> None:
    found = {each["metadata"]["name"]: each for each in services()}
    assert set(found) == {"tumor-champion", "tumor-challenger"}
    service = found["tumor-challenger"]
    predictor, said = service["spec"]["predictor"], service["metadata"]["annotations"]
    [container] = predictor["containers"]
    assert container["image"] == deployed(2).image
    assert container["ports"] == [{"name": "http", "containerPort": POD_PORT, "protocol": "TCP"}]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 2)
    assert (said["modelyard.io/model"], said["modelyard.io/model-sha256"]) == ("tumor:2", "m" * 64)


@pytest.mark.parametrize("rule", [*EVERYWHERE, images_are_named_by_digest], ids=lambda rule: rule.__name__)
def test_a_pod_at_kserve_keeps_every_rule_that_our_own_pods_keep(rule: Rule) -> None:
    assert list(rule(the_pod())) == []


def test_a_pod_at_kserve_has_nothing_of_our_stage() -> None:
    text = yaml.safe_dump_all(services())
    for word in ("YARD_GATEWAY_SECRET_FILE", "YARD_CONSOLE_URL", "YARD_AUDIT_DIR", "/secrets", "secretName"):
        assert word not in text
    # Ours are found by these labels: `yard up` deletes what has them and is wanted by nobody.
    assert not [term for term in SELECTOR.split(",") if term.partition("=")[0] in text]


def test_what_is_not_in_pods_or_has_no_image_is_refused_in_one_sentence() -> None:
    with pytest.raises(Refused, match=r"tumor-1 is processes of this machine.*\n.*yard deploy tumor:1 --stage"):
        exported(TUMOR, Form.HTTPROUTE, pods=0, ports=(4001,))
    with pytest.raises(Refused, match=r"tumor:1 was deployed without an image.*\n.*yard build tumor:1 --until push"):
        exported(TUMOR, Form.INFERENCESERVICE, image="", pods=0, ports=(4001,))


def test_the_yaml_is_read_back_as_it_was() -> None:
    documents = [*routes(), *services()]
    text = yaml.safe_dump_all(documents, explicit_start=True, sort_keys=False, allow_unicode=True, width=120)
    assert list(yaml.safe_load_all(text)) == documents
    assert "&id" not in text
