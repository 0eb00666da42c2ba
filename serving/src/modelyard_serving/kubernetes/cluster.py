"""A Kubernetes, as far as it is needed here: applied on the server, read, deleted, with a timeout for each call."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import httpx
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from modelyard_serving.errors import Refused, Unavailable

Json = dict[str, Any]
MANAGER = "modelyard"
CALL_S = 15


class Cluster:
    """A Kubernetes that a kubeconfig names, or the one whose pod this is.

    Args:
        context: of the kubeconfig; its current one by default.
    """

    def __init__(self, context: str | None = None) -> None:
        self._context = context

    @cached_property
    def _api(self) -> client.ApiClient:
        settings = client.Configuration()
        try:
            if not self._context and "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("KUBECONFIG"):
                config.load_incluster_config(settings)
            else:
                file = os.environ.get("KUBECONFIG")  # the library reads it once, when it is imported
                config.load_kube_config(file, self._context, settings)
        except (ConfigException, OSError) as error:
            raise Unavailable(
                f"No Kubernetes is known here: {error}\nName one:  export KUBECONFIG=... (and the stage: context)"
            ) from error
        settings.retries = urllib3.Retry(connect=2, read=0, status=0, redirect=0, backoff_factor=0.2)
        return client.ApiClient(settings)

    @cached_property
    def _dynamic(self) -> DynamicClient:
        with self._said("asked what it knows"):
            return DynamicClient(self._api)

    def version(self) -> str:
        with self._said("asked for its version"):
            return str(client.VersionApi(self._api).get_code(_request_timeout=CALL_S).git_version)

    def apply(self, document: Mapping[str, Any]) -> Json:
        """Server-side: fields that others own and we do not name stay theirs."""
        metadata = document["metadata"]
        with self._said(f"asked for {document['kind']} {metadata['name']}"):
            return self._dict(
                self._resource(document["apiVersion"], document["kind"]).server_side_apply(
                    body=dict(document),
                    name=metadata["name"],
                    namespace=metadata.get("namespace"),
                    field_manager=MANAGER,
                    force_conflicts=True,
                    _request_timeout=CALL_S,
                )
            )

    def get(self, api: str, kind: str, namespace: str, name: str) -> Json | None:
        with self._said(f"asked about {kind} {name}"):
            try:
                return self._dict(self._resource(api, kind).get(name, namespace, _request_timeout=CALL_S))
            except ApiException as error:
                if error.status == 404:
                    return None
                raise

    def list(self, api: str, kind: str, namespace: str, **selectors: str) -> list[Json]:
        """Everything of a kind; `selectors` are label_selector and field_selector."""
        with self._said(f"asked about each {kind}"):
            found = self._resource(api, kind).get(namespace=namespace, _request_timeout=CALL_S, **selectors)
            return list(self._dict(found)["items"])

    def delete(self, api: str, kind: str, namespace: str, name: str) -> None:
        """What is gone already stays gone."""
        with self._said(f"told to delete {kind} {name}"):
            try:
                self._resource(api, kind).delete(
                    name, namespace, body={"propagationPolicy": "Background"}, _request_timeout=CALL_S
                )
            except ApiException as error:
                if error.status != 404:
                    raise

    def log_tail(self, namespace: str, pod: str, container: str, *, before: bool = False, lines: int = 12) -> str:
        """The last lines of a container's log, or of the one that ended before it; empty where there are none."""
        core = client.CoreV1Api(self._api)
        try:
            said = core.read_namespaced_pod_log(
                pod, namespace, container=container, previous=before, tail_lines=lines, _request_timeout=CALL_S
            )
        except (ApiException, urllib3.exceptions.HTTPError):
            return ""
        return str(said).strip()

    def may(self, verb: str, what: str, namespace: str) -> bool:
        """Does Kubernetes allow it? `what` is such as deployments.apps or pods/log."""
        resource, _, group = what.partition(".")
        resource, _, part = resource.partition("/")
        asked = {"verb": verb, "resource": resource, "subresource": part, "group": group, "namespace": namespace}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        with self._said("asked what is allowed"):
            said = client.AuthorizationV1Api(self._api).create_self_subject_access_review(
                {**review, "spec": {"resourceAttributes": asked}}, _request_timeout=CALL_S
            )
        return bool(said.status.allowed)

    def asking(self, namespace: str, pod: str, port: int, headers: Mapping[str, str]) -> httpx.Client:
        """A client of one pod, through the API server: from where it can be reached, so can the pod."""
        settings = self._api.configuration
        trust = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            trust.load_cert_chain(settings.cert_file, settings.key_file)
        login = {said["key"]: said["value"] for said in settings.auth_settings().values() if said["in"] == "header"}
        return httpx.Client(
            base_url=f"{settings.host}/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy",
            headers={**headers, **login},
            verify=trust,
            timeout=30,
        )

    def knows(self, api: str, kind: str) -> bool:
        try:
            self._resource(api, kind)
        except Unavailable:
            return False
        return True

    def _resource(self, api: str, kind: str) -> Any:
        try:
            return self._dynamic.resources.get(api_version=api, kind=kind)
        except ResourceNotFoundError as error:
            raise Unavailable(f"This Kubernetes knows no {kind} of {api}.") from error

    def _dict(self, found: Any) -> Json:
        document: Json = found.to_dict()
        return document

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """What goes wrong, in a sentence."""
        try:
            yield
        except ApiException as error:
            body = str(error.body or error.reason)
            message = _message(body)
            if error.status in (401, 403):
                raise Refused(f"Kubernetes does not allow it, {what}: {message}") from error
            raise Unavailable(f"Kubernetes, {what}, says {error.status}: {message}") from error
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"Kubernetes does not answer at {self._api.configuration.host}: {error}") from error


def _message(body: str) -> str:
    import json

    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:500]
