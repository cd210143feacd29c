"""The files in deploy/ agree with the code."""

from __future__ import annotations

import configparser
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from inferd.daemon.broker.jars import read_lock
from inferd.daemon.http.core.peers import read_peer_secret
from inferd.daemon.process import EXIT_FAILED, EXIT_SETTINGS
from inferd.daemon.settings.checks import check_worker, worker_warnings
from inferd.daemon.settings.settings import Settings
from inferd.daemon.supervision.exit import EXIT_DRAIN_TIMEOUT, EXIT_STALLED, EXIT_ZOMBIE
from inferd.streams.kafka.topic_checks import topic_specs

ROOT = Path(__file__).parents[2]
BUILD_LOCK = "deploy/build-requirements.lock"
LOCKS = ("requirements.lock", "requirements-dev.lock", "deploy/requirements.lock")
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\$", re.MULTILINE)


@pytest.fixture
def services() -> dict[str, Any]:
    compose: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    return compose["services"]


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in service["environment"].items() if name.startswith("INFERD_")}


def test_the_topic_list_matches_the_workers_topics() -> None:
    lines = (ROOT / "deploy/topics.txt").read_text().splitlines()
    listed = [line.split() for line in lines if line and not line.startswith("#")]

    assert [
        (name, int(partitions), int(replication), dict(item.split("=") for item in settings))
        for name, partitions, replication, *settings in listed
    ] == [
        (spec.name, spec.partitions, spec.replication, dict(spec.config)) for spec in topic_specs(Settings().streams())
    ]


def test_compose_runs_the_kafka_of_the_embedded_broker(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{read_lock().version}"


@pytest.mark.parametrize("name", ["topics", "worker-1", "worker-2"])
def test_compose_sets_valid_settings(services: dict[str, Any], name: str) -> None:
    environment = environment_of(services[name])
    assert all(isinstance(value, str) for value in environment.values())
    secret = environment.pop("INFERD_HTTP_FORWARDING_SECRET_FILE", None)
    assert (secret is None) == (name == "topics")
    assert Settings.from_environment(environment).broker == "kafka:19092"


def test_compose_creates_the_shared_secret(services: dict[str, Any], tmp_path: Path) -> None:
    maker = services["forwarding-secret"]
    (volume,) = maker["volumes"]
    source, place = volume.split(":")
    (command,) = (text.replace("$$", "$").replace(place, str(tmp_path)) for text in maker["command"])
    for _ in range(2):
        subprocess.run([*maker["entrypoint"], command], check=True)
    (made,) = tmp_path.iterdir()
    before = read_peer_secret(made).keys
    subprocess.run([*maker["entrypoint"], command], check=True)
    assert read_peer_secret(made).keys == before
    for name in ("worker-1", "worker-2"):
        wanted = Path(services[name]["environment"]["INFERD_HTTP_FORWARDING_SECRET_FILE"])
        assert f"{source}:{wanted.parent}:ro" in services[name]["volumes"]
        assert wanted.name == made.name
        assert "forwarding-secret" in services[name]["depends_on"]


@pytest.mark.parametrize("name", ["worker-1", "worker-2"])
def test_compose_sets_the_advertised_url_of_each_worker(services: dict[str, Any], name: str) -> None:
    environment = environment_of(services[name])
    del environment["INFERD_HTTP_FORWARDING_SECRET_FILE"]
    settings = Settings.from_environment(environment)
    assert settings.http_advertised_url == f"http://{name}:{settings.http_port}"
    assert worker_warnings(settings) == ()


def test_the_stop_grace_period_of_a_container_exceeds_the_drain_timeout(services: dict[str, Any]) -> None:
    assert float(services["worker-1"]["stop_grace_period"].removesuffix("s")) > Settings().drain_timeout_s


# Kubernetes


KUBERNETES = "1.34"
POD_IP = "10.1.2.3"


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text()))


@pytest.fixture(scope="module")
def deployment(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (each for each in manifests if each["kind"] == "Deployment")
    return found


def pods_of(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in manifests if "template" in each.get("spec", {})]


def container_environment(container: dict[str, Any], config: dict[str, str], fields: dict[str, str]) -> dict[str, str]:
    """The environment of a container, without secrets."""
    environment = dict(config) if any("configMapRef" in each for each in container["envFrom"]) else {}
    for each in container.get("env", []):
        source = each.get("valueFrom", {})
        if "fieldRef" in source:
            environment[each["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "configMapKeyRef" in source:
            environment[each["name"]] = config[source["configMapKeyRef"]["key"]]
        else:
            environment[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], each["value"])
    return environment


def test_manifests_follow_the_schemas_of_kubernetes(manifests: list[dict[str, Any]]) -> None:
    assert {each["kind"] for each in manifests} >= {"Deployment", "Service", "PodDisruptionBudget", "ConfigMap"}
    for each in manifests:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_pods_set_valid_settings(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    (config,) = (each["data"] for each in manifests if each["kind"] == "ConfigMap")
    secrets = {"INFERD_HTTP_TOKENS_FILE": "http-tokens", "INFERD_HTTP_FORWARDING_SECRET_FILE": "http-forwarding"}
    (there := tmp_path / "secret").touch()
    for pod in pods_of(manifests):
        (container,) = pod["containers"]
        fields = {"metadata.name": "inferd-worker-1", "status.podIP": POD_IP}
        environment = container_environment(container, config, fields)
        assert environment.items() >= config.items(), "topics and workers use the same cluster"
        for variable in secrets.keys() & environment.keys():
            (mount,) = (each for each in container["volumeMounts"] if each["name"] == secrets[variable])
            assert Path(environment[variable]).parent == Path(mount["mountPath"])
            environment[variable] = str(there)
        assert secrets.keys() <= environment.keys() or container["name"] == "topics"
        ours = {name: value for name, value in environment.items() if name.startswith("INFERD_")}
        assert Settings.from_environment(ours).broker == "kafka:9092"


def test_a_pod_advertises_its_own_address(manifests: list[dict[str, Any]], deployment: dict[str, Any]) -> None:
    (config,) = (each["data"] for each in manifests if each["kind"] == "ConfigMap")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = container_environment(container, config, {"metadata.name": "w", "status.podIP": POD_IP})
    assert environment["INFERD_HTTP_ADVERTISED_URL"] == f"http://{POD_IP}:{environment['INFERD_HTTP_PORT']}"
    assert [port["containerPort"] for port in container["ports"]] == [int(environment["INFERD_HTTP_PORT"])]
    assert environment["INFERD_HTTP_HOST"] == "0.0.0.0", "the address in the pod is not the loopback"


def test_pods_run_without_privileges(manifests: list[dict[str, Any]]) -> None:
    assert len(pods_of(manifests)) == 2
    for pod in pods_of(manifests):
        assert pod["securityContext"]["runAsNonRoot"]
        assert f"--uid {pod['securityContext']['runAsUser']} " in (ROOT / "deploy/Dockerfile").read_text()
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"], "Service variables would be unknown settings"
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounted >= {"/var/lib/inferd", "/tmp"}, "the writable directories"


def test_a_pod_is_probed_and_drained(deployment: dict[str, Any]) -> None:
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "startup", "readiness")}
    assert probes == {"liveness": "/livez", "startup": "/livez", "readiness": "/readyz"}
    until_term_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > until_term_s + Settings().drain_timeout_s


def test_every_pod_mounts_the_certificate_authority_of_the_example(manifests: list[dict[str, Any]]) -> None:
    text = (ROOT / "deploy/kubernetes.yaml").read_text()
    (example,) = re.findall(r"# +INFERD_KAFKA_SSL_CAFILE: (\S+)", text)
    for pod in pods_of(manifests):
        (container,) = pod["containers"]
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "kafka-ca")
        (volume,) = (each for each in pod["volumes"] if each["name"] == "kafka-ca")
        assert Path(example).parent == Path(mount["mountPath"])
        assert volume["secret"]["optional"]
        assert f"{volume['secret']['secretName']} --from-file={Path(example).name}" in text


def test_the_network_policy_allows_the_workers_connections(manifests: list[dict[str, Any]]) -> None:
    (policy,) = (each["spec"] for each in manifests if each["kind"] == "NetworkPolicy")
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    for pod in (each["spec"]["template"] for each in manifests if "template" in each.get("spec", {})):
        assert pod["metadata"]["labels"].items() >= policy["podSelector"]["matchLabels"].items()
    port = Settings().http_port
    (ingress,) = policy["ingress"]
    assert {"podSelector": policy["podSelector"]} in ingress["from"], "workers forward requests for jobs"
    assert [each["port"] for each in ingress["ports"]] == [port]
    egress = {each["port"] for rule in policy["egress"] for each in rule["ports"]}
    (config,) = (each["data"] for each in manifests if each["kind"] == "ConfigMap")
    assert egress >= {port, 53, int(config["INFERD_BROKER"].rsplit(":", 1)[1])}


def test_prometheus_scrapes_workers_with_a_token(deployment: dict[str, Any]) -> None:
    scrape = yaml.safe_load((ROOT / "deploy/prometheus-scrape.yaml").read_text())
    assert all("credentials_file" in job["authorization"] for job in scrape["scrape_configs"])
    assert [(ROOT / "deploy" / name).exists() for name in scrape["rule_files"]] == [True]
    (pods,) = (job for job in scrape["scrape_configs"] if "kubernetes_sd_configs" in job)
    kept = {rule["source_labels"][0]: rule["regex"] for rule in pods["relabel_configs"] if rule.get("action") == "keep"}
    template = deployment["spec"]["template"]
    assert kept == {
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": template["metadata"]["labels"]["app.kubernetes.io/name"],
        "__meta_kubernetes_pod_container_port_name": template["spec"]["containers"][0]["ports"][0]["name"],
    }


def test_selectors_find_the_workers(manifests: list[dict[str, Any]], deployment: dict[str, Any]) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for each in manifests:
        if each["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert each["spec"]["selector"]["matchLabels"] == labels
        elif each["kind"] == "Service":
            assert each["spec"]["selector"] == labels


# systemd


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """The settings of the section Service."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "deploy/inferd@.service")
    return {name: value.split() for name, value in parser["Service"].items()}


def test_systemd_starts_a_worker_with_settings_that_exist(unit: dict[str, list[str]]) -> None:
    assert unit["ExecStart"][-2:] == ["/opt/inferd/bin/inferd", "worker"]
    values = dict(item.split("=", 1) for item in unit["Environment"])
    specifiers = {"%i": "8081", "%H": "machine"}
    for found, meant in specifiers.items():
        values = {name: value.replace(found, meant) for name, value in values.items()}
    values["INFERD_DATA_DIR"] = values["INFERD_DATA_DIR"].replace("/var/lib", "/tmp")
    settings = Settings.from_environment(values)
    assert (settings.http_port, settings.worker_id) == (8081, "machine-8081")


def test_systemd_restarts_unless_the_settings_are_wrong(unit: dict[str, list[str]]) -> None:
    assert unit["Restart"] == ["always"]
    prevented = {int(code) for code in unit["RestartPreventExitStatus"]}
    assert prevented == {EXIT_SETTINGS}
    assert not prevented & {EXIT_FAILED, EXIT_DRAIN_TIMEOUT, EXIT_STALLED, EXIT_ZOMBIE}


def test_the_stop_timeout_of_systemd_exceeds_the_drain_timeout(unit: dict[str, list[str]]) -> None:
    assert unit["KillSignal"] == ["SIGTERM"]
    assert float(unit["TimeoutStopSec"][0].removesuffix("s")) > Settings().drain_timeout_s


def test_systemd_removes_privileges(unit: dict[str, list[str]]) -> None:
    wanted = ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelTunables")
    assert {name: unit[name] for name in wanted} == {name: ["yes"] for name in wanted}
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["CapabilityBoundingSet"] == []
    assert unit["User"] == ["inferd"]
    assert unit["StateDirectory"] == ["inferd/%i"]


# The locks


def pins_of(lock: str) -> dict[tuple[str, str], str]:
    text = (ROOT / lock).read_text()
    return {(name, marker): version for name, version, marker in PIN.findall(text)}


def test_the_locks_agree_with_each_other() -> None:
    demo, everything, deployed = (pins_of(lock) for lock in LOCKS)
    for lock in (demo, deployed, pins_of(BUILD_LOCK)):
        for (name, marker), version in lock.items():
            candidates = {known for (other, _), known in everything.items() if other == name}
            assert version in candidates, (name, marker)


def test_the_image_has_the_extras_of_a_worker_and_no_build_tools() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {name for name, _ in pins_of("deploy/requirements.lock")}
    for extra in ("files", "otel"):
        assert {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in extras[extra]} <= names
    assert "hatchling" not in names
    assert "hatchling" in {name for name, _ in pins_of(BUILD_LOCK)}


@pytest.mark.parametrize("lock", [*LOCKS, BUILD_LOCK])
def test_every_pin_has_hashes_and_no_lock_names_an_index(lock: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
    pins = [entry for entry in entries if not entry.startswith("#")]
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"--(extra-)?index-url|--find-links|://", "\n".join(entries))


def test_the_locks_contain_the_projects_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in project["dependencies"]}
    for lock in LOCKS:
        assert wanted <= {name for name, _ in pins_of(lock)}


# Scaling


def test_the_workers_with_static_membership_are_those_of_the_deployment(
    manifests: list[dict[str, Any]], deployment: dict[str, Any], tmp_path: Path
) -> None:
    static = list(yaml.safe_load_all((ROOT / "deploy/kubernetes-static.yaml").read_text()))
    for each in static:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    (stateful,) = (each for each in static if each["kind"] == "StatefulSet")
    (config,) = (each["data"] for each in manifests if each["kind"] == "ConfigMap")
    there, pod = (each["spec"]["template"]["spec"] for each in (deployment, stateful))
    fields = {"metadata.name": "inferd-worker-1", "status.podIP": POD_IP}
    usual, own = (container_environment(each["containers"][0], config, fields) for each in (there, pod))
    assert own.keys() - usual.keys() == {
        "INFERD_INSTANCE_ID", "INFERD_SESSION_TIMEOUT_S", "INFERD_REQUEST_TIMEOUT_S",
    }  # fmt: skip
    assert own["INFERD_INSTANCE_ID"] == "inferd-worker-1"
    texts = {"INFERD_HTTP_TOKENS_FILE": f"default:{'0' * 64}", "INFERD_HTTP_FORWARDING_SECRET_FILE": "0123456789" * 7}
    files = {name: str(tmp_path / name) for name in texts}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    settings = check_worker(
        Settings.from_environment({n: v for n, v in own.items() if n.startswith("INFERD_")} | files)
    )
    assert settings.session_timeout_s > settings.drain_timeout_s, "a restart fits into it"
    drop = {"env", "volumeMounts"}
    assert {k: v for k, v in pod["containers"][0].items() if k not in drop} == {
        k: v for k, v in there["containers"][0].items() if k not in drop
    }
    volumes = {each["name"] for each in pod["volumes"]} | {
        each["metadata"]["name"] for each in stateful["spec"]["volumeClaimTemplates"]
    }
    assert volumes == {each["name"] for each in there["volumes"]}


def test_keda_scales_the_workers_by_their_topics_and_group(
    manifests: list[dict[str, Any]], deployment: dict[str, Any]
) -> None:
    scaled, trigger_authentication = yaml.safe_load_all((ROOT / "deploy/keda.yaml").read_text())
    (config,) = (each["data"] for each in manifests if each["kind"] == "ConfigMap")
    settings = Settings.from_environment(config)
    spec = scaled["spec"]
    assert spec["scaleTargetRef"] == {"kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert spec["minReplicaCount"] == deployment["spec"]["replicas"]
    assert spec["maxReplicaCount"] == settings.topic_partitions
    kafka, cpu = (trigger["metadata"] for trigger in spec["triggers"])
    topics = {each.name for each in topic_specs(settings.streams())}
    assert kafka["topic"] in topics
    assert (kafka["bootstrapServers"], kafka["consumerGroup"]) == (settings.broker, settings.group)
    assert all(isinstance(value, str) for value in [*kafka.values(), *cpu.values()]), "KEDA reads texts only"
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1"
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    autoscaler = {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", **spec["scaleTargetRef"]}, "behavior": behavior,
            "minReplicas": 2, "maxReplicas": 4,
        },
    }  # fmt: skip
    kubernetes_validate.validate(autoscaler, KUBERNETES, strict=True)
    assert trigger_authentication["kind"] == "TriggerAuthentication"
