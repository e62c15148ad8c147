"""Waits until the Deployment is rolled out, then holds its error rate against 5 %: exits 1 when it is above.

Needs the official client (`pip install kubernetes`) and PROMETHEUS_URL. CHECK_WINDOW is over how long the rate is taken.
"""

import json
import math
import os
import sys
import time
import urllib.parse
import urllib.request

from kubernetes import client, config

DEPLOYMENT = os.environ.get("CHECK_DEPLOYMENT", "myapp-production")
MAX_WAIT_SECONDS = 300
CHECK_INTERVAL_SECONDS = float(os.environ.get("CHECK_INTERVAL", "15"))
ERROR_THRESHOLD = 5.0
WINDOW = os.environ.get("CHECK_WINDOW", "5m")
PROMETHEUS = os.environ.get("PROMETHEUS_URL", "http://prometheus:9090")


def load_config():
    """In the cluster as its service account, elsewhere by the kubeconfig; return the namespace."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
        _, context = config.list_kube_config_contexts()
        return context["context"].get("namespace", "default")
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
        return file.read().strip()


def wait_for_rollout(namespace):
    apps = client.AppsV1Api()
    start_time = time.time()
    while time.time() - start_time < MAX_WAIT_SECONDS:
        try:
            deployment = apps.read_namespaced_deployment_status(name=DEPLOYMENT, namespace=namespace)
            status, wanted = deployment.status, deployment.spec.replicas
            if status.updated_replicas == wanted and status.ready_replicas == wanted:
                print("Deployment appears complete.")
                return
        except Exception as error:
            print(f"Waiting for deployment status: {error}")
        time.sleep(CHECK_INTERVAL_SECONDS)
    raise TimeoutError("Deployment did not reach ready state within timeout.")


def error_rate(namespace):
    """Return how many percent of the requests were answered 5xx; None while nobody has asked."""
    chosen = f'namespace="{namespace}",pod=~"{DEPLOYMENT}-.*"'
    bad = f'(sum(increase(http_requests_total{{{chosen},code=~"5.."}}[{WINDOW}])) or vector(0))'
    query = f"100 * {bad} / sum(increase(http_requests_total{{{chosen}}}[{WINDOW}]))"
    address = f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        result = json.load(answer)["data"]["result"]
    value = float(result[0]["value"][1]) if result else float("nan")
    return None if math.isnan(value) else value


def main():
    namespace = load_config()
    wait_for_rollout(namespace)
    deadline = time.time() + MAX_WAIT_SECONDS
    time.sleep(float(os.environ.get("CHECK_SOAK", "60")))  # the new version has to be asked before it can be judged
    while (rate := error_rate(namespace)) is None:
        if time.time() > deadline:
            sys.exit("Nothing was measured: this is neither good nor bad.")
        time.sleep(CHECK_INTERVAL_SECONDS)
    print(f"{rate:.1f} % of the requests of the last {WINDOW} were answered with errors.")
    if rate > ERROR_THRESHOLD:
        print("High error rate detected! Initiating rollback.")
        sys.exit(1)
    print("Post-deployment checks passed.")


if __name__ == "__main__":
    main()
