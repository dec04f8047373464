"""Asks a running extender what `helm test` wants to know. Standard library only; runs in the extender's image.

Arguments: URL of the operations port; URL of the verbs where they can be reached from outside the pod; where either is
https, the folder with the certificate (tls.crt, tls.key) to show and the authority (ca.crt), and the folder with the
certificate for the operations port where that demands another.
"""

import json
import ssl
import sys
import urllib.error
import urllib.request


def opened(folder: str) -> urllib.request.OpenerDirector:
    """What asks with the certificate in a folder; in plain HTTP where there is none."""
    context = None
    if folder:
        context = ssl.create_default_context(cafile=f"{folders[0]}/ca.crt")
        context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    # no proxy of the environment: the extender is in the cluster
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def ask(url: str, body: object = None) -> bytes:
    """The answer's body; ends the program unless the status is 200."""
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - the chart's own URLs
    try:
        with (reader if body is None else caller).open(call, timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace')[:500]}")
    except OSError as error:
        sys.exit(f"{url} cannot be reached: {error}")


operations, *verbs = [each for each in sys.argv[1:] if "://" in each]
folders = [each for each in sys.argv[1:] if "://" not in each] or [""]
caller, reader = opened(folders[0]), opened(folders[-1])
ask(f"{operations}/healthz")
ask(f"{operations}/readyz")
if b"maddpg_" not in ask(f"{operations}/metrics"):
    sys.exit(f"{operations}/metrics shows no metric of the extender")
for url in verbs:
    containers = [{"name": "main", "resources": {"requests": {"cpu": "100m"}}}]
    pod = {
        "metadata": {"name": "helm-test", "namespace": "default", "uid": "helm-test"},
        "spec": {"containers": containers},
    }
    nodes = ["no-such-node-1", "no-such-node-2"]
    rated = json.loads(ask(f"{url}/prioritize", {"Pod": pod, "Nodes": None, "NodeNames": nodes}))
    scores = {each["Host"]: each["Score"] for each in rated}
    # unknown nodes are rated alike, and of nodes rated alike none need be named
    if not set(scores) <= set(nodes) or not all(type(score) is int and 0 <= score <= 10 for score in scores.values()):
        sys.exit(f"{url}/prioritize answered {rated}")
print("ready, and rates nodes" if verbs else "ready")
