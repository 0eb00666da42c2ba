"""An endpoint for those who route with the Gateway API or serve with KServe. Pure: values in, documents out.

What is exported is a copy: a later split or deploy does not change it. No secret is ever in it. A model's pod that
`yard deploy` made answers only who shows the gateway's secret, so a route past the gateway is for pods without one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, gcd
from typing import Any

from modelyard_serving.endpoints import POD_PORT, Deployment, Endpoint
from modelyard_serving.errors import Refused
from modelyard_serving.gateway.routes import Address, addresses
from modelyard_serving.kubernetes.forms import Form, To
from modelyard_serving.kubernetes.objects import Place, label, pod, provenance
from modelyard_serving.split import BUCKETS

Json = dict[str, Any]
RULES = 16  # that one HTTPRoute may have
BACKENDS = 16  # that one of its rules may have
GATEWAY, GATEWAY_PORT = "gateway", 80  # our own Service
VARIANT = "x-variant"
# What only our gateway says; without it, whoever asks could say it, and stand in the audit as somebody else.
FORGEABLE = ("x-caller", "x-key-id", "x-scopes", "x-assigned-by", "x-bucket", "x-epoch", "x-shadow", "x-prediction-id")
SECRETS = ("YARD_GATEWAY_SECRET_FILE", "YARD_CONSOLE_URL", "YARD_AUDIT_DIR", "YARD_LAST_EFFORT_S")
SECRET_VOLUMES = ("gateway", "audit")
PREDICTOR = "-predictor-"  # KServe's host name: the service, this, and the namespace, in one label of 63


@dataclass(frozen=True, slots=True)
class Export:
    """Documents for Kubernetes, and in words what the endpoint has here and would not have there."""

    documents: tuple[Json, ...]
    lost: tuple[str, ...]


def export(
    endpoint: Endpoint, deployments: Mapping[str, Deployment], place: Place, form: Form, to: To, gateway: str
) -> Export:
    """The endpoint in another form.

    Args:
        deployments: by their names, each that a variant is.
        gateway: that a route belongs to: NAME, or NAMESPACE/NAME.

    Raises:
        Refused: a variant is nothing that could be routed to, or served, there.
    """
    if form == Form.INFERENCESERVICE:
        return Export(tuple(inference_services(endpoint, deployments, place)), _lost_by_services(endpoint))
    if to == To.GATEWAY:
        return Export((gateway_route(endpoint, place, gateway),), ())
    return Export(tuple(http_routes(endpoint, deployments, place, gateway)), _lost_by_routes(endpoint))


def http_routes(
    endpoint: Endpoint, deployments: Mapping[str, Deployment], place: Place, gateway: str
) -> Iterator[Json]:
    """To the models themselves: who names a variant in a header gets it, and all others are shared out by weight.

    There are as many HTTPRoutes as it takes, since each has no more than 16 rules; which rule counts is decided over
    all of them, by the number of headers that match.

    Raises:
        Refused: a variant is not in pods, or too many of them answer.
    """
    for name in endpoint.variants.values():
        if not deployments[name].pods:
            raise Refused(
                f"{name} is processes of this machine, and no Service of a Kubernetes leads to it.\n"
                f"Deploy it to a stage of pods:  yard deploy {_ref(deployments[name])} --stage NAME"
            )
    rules = list(_rules(endpoint))
    for number, start in enumerate(range(0, len(rules), RULES), 1):
        # No name of ours has a dot: a second part is no other endpoint's first.
        name = label(endpoint.name) if number == 1 else f"{label(endpoint.name)}.{number}"
        yield _route(name, endpoint, place, gateway, rules[start : start + RULES])


def gateway_route(endpoint: Endpoint, place: Place, gateway: str) -> Json:
    """To our own gateway, which goes on to ask for keys, to keep units with their variants and to say who called."""
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": prefix}} for prefix in ("/v1", "/v2")],
        "timeouts": {"request": "0s"},  # it has one of its own for each endpoint
        "backendRefs": [{"name": GATEWAY, "port": GATEWAY_PORT}],
    }
    return _route(label(endpoint.name), endpoint, place, gateway, [rule])


def inference_services(endpoint: Endpoint, deployments: Mapping[str, Deployment], place: Place) -> Iterator[Json]:
    """An InferenceService per variant, which runs the same image in the same pod, without what belongs to our stage.

    Raises:
        Refused: a variant has no image.
    """
    for name in endpoint.variants.values():
        if not deployments[name].image:
            ref = _ref(deployments[name])
            raise Refused(
                f"{ref} was deployed without an image in a registry, and KServe runs nothing else.\n"
                f"Make it, and deploy it again:  yard build {ref} --until push"
            )
    for variant, name in sorted(endpoint.variants.items()):
        yield _inference_service(variant, deployments[name], endpoint, place)


def _route(name: str, endpoint: Endpoint, place: Place, gateway: str, rules: Sequence[Json]) -> Json:
    namespace, _, gateway_name = gateway.rpartition("/")
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"namespace": place.namespace, "name": name, "annotations": _about(endpoint)},
        "spec": {
            "parentRefs": [{**({"namespace": namespace} if namespace else {}), "name": gateway_name}],
            "rules": list(rules),
        },
    }


def _rules(endpoint: Endpoint) -> Iterator[Json]:
    for variant, name in sorted(endpoint.variants.items()):
        for doors in _doors(endpoint):
            yield _rule(doors, endpoint, variant, [{"name": label(name), "port": POD_PORT}])
    if weights := _weights(endpoint):
        for doors in _doors(endpoint):
            services = [(label(endpoint.variants[variant]), weight) for variant, weight in sorted(weights.items())]
            backends = [{"name": name, "port": POD_PORT, "weight": weight} for name, weight in services]
            yield _rule(doors, endpoint, None, backends)


def _rule(doors: Sequence[Address], endpoint: Endpoint, variant: str | None, backends: Sequence[Json]) -> Json:
    said = {
        "set": [{"name": "x-endpoint", "value": endpoint.name}],
        "remove": [*FORGEABLE, *([] if variant else [VARIANT])],  # one that there is not, or no more
    }
    filters: list[Json] = [{"type": "RequestHeaderModifier", "requestHeaderModifier": said}]
    if doors[0].path != doors[0].runtime:
        path = {"type": "ReplaceFullPath", "replaceFullPath": doors[0].runtime}
        filters.append({"type": "URLRewrite", "urlRewrite": {"path": path}})
    return {
        "matches": [_match(door, variant) for door in doors],
        "filters": filters,
        "timeouts": {"request": _duration(endpoint.timeout_s)},
        "backendRefs": list(backends),
    }


def _match(door: Address, variant: str | None) -> Json:
    path = {"type": "Exact", "value": door.path}
    return {"path": path, **({"headers": [{"type": "Exact", "name": VARIANT, "value": variant}]} if variant else {})}


def _doors(endpoint: Endpoint) -> list[list[Address]]:
    """The endpoint's addresses, those together that the runtime knows by the same name: they share a rule."""
    found = list(addresses(endpoint.name))
    same = [address for address in found if address.path == address.runtime]
    return [*([address] for address in found if address.path != address.runtime), same]


def _weights(endpoint: Endpoint) -> dict[str, int]:
    """Of each variant that answers: its buckets, in the smallest whole numbers that are in the same proportion."""
    buckets = Counter({variant: round(share * BUCKETS) for variant, share in endpoint.table.shares().items()})
    if len(buckets) > BACKENDS:
        raise Refused(f"{len(buckets)} variants of {endpoint.name} answer, and a rule of an HTTPRoute has {BACKENDS}.")
    return {variant: count // gcd(*buckets.values()) for variant, count in buckets.items()}


def _duration(seconds: float) -> str:
    """As the Gateway API writes it: 30s, 2s500ms."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    return (f"{whole}s" if whole else "") + (f"{rest}ms" if rest or not whole else "")


def _inference_service(variant: str, deployment: Deployment, endpoint: Endpoint, place: Place) -> Json:
    name = label(f"{endpoint.name}-{variant}", max(24, 63 - len(PREDICTOR) - len(place.namespace)))
    spec = pod(deployment, place)
    [container] = spec["containers"]
    container["name"] = "kserve-container"  # the one that KServe takes for the model
    container["env"] = [each for each in container["env"] if each["name"] not in SECRETS]
    container["env"].append({"name": "protocol", "value": "v2"})  # where KServe looks for what is spoken
    container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] not in SECRET_VOLUMES]
    spec["volumes"] = [each for each in spec["volumes"] if each["name"] not in SECRET_VOLUMES]
    # None of our own labels: our Services would take these pods for theirs, and `yard up` would delete them.
    spec["topologySpreadConstraints"][0]["labelSelector"] = {
        "matchLabels": {"serving.kserve.io/inferenceservice": name}
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "namespace": place.namespace,
            "name": name,
            "annotations": {
                # By its old name, which KServe's newer versions know as well. Knative takes no such security context.
                "serving.kserve.io/deploymentMode": "RawDeployment",
                **_about(endpoint),
                "modelyard.io/variant": variant,
                **provenance(deployment),
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": deployment.size,
                "maxReplicas": deployment.size,
                "timeout": ceil(endpoint.timeout_s),
                "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                **spec,
            }
        },
    }


def _about(endpoint: Endpoint) -> dict[str, str]:
    return {"modelyard.io/endpoint": endpoint.name, "modelyard.io/revision": str(endpoint.revision)}


def _ref(deployment: Deployment) -> str:
    return f"{deployment.model}:{deployment.version}"


def _lost_by_routes(endpoint: Endpoint) -> tuple[str, ...]:
    shadow = [f"the shadow {endpoint.shadow.variant} is sent no copies"] if endpoint.shadow else []
    return (
        "keys, scopes and limits: whoever reaches the Gateway is answered, and no record names a caller",
        "stickiness: weights are drawn for each request, so a unit meets several variants and no A/B test can be read",
        f"who chooses: any caller gets any variant, tried ones too, by the header {VARIANT}",
        *shadow,
        "exact versions, feedback, results and report: they have no route",
        "pods that `yard deploy` made refuse these requests with 403: they want our gateway's secret, which is in no "
        "route, and their network policy lets only it in. All is kept with:  --to gateway",
    )


def _lost_by_services(endpoint: Endpoint) -> tuple[str, ...]:
    shares = ", ".join(f"{variant} {share:.2%}" for variant, share in sorted(endpoint.table.shares().items()))
    return (
        "keys and scopes: whoever reaches the service is answered",
        "audit, trace, feedback and results: predictions are recorded nowhere",
        f"the split ({shares or 'nobody answers'}): each variant has an address of its own, where it answers "
        f"/v2/models/{endpoint.name}/infer",
    )
