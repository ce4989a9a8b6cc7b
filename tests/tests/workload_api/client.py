# SPDX-License-Identifier: Apache-2.0
"""A workload in Python, with PyPI's `spiffe` as everybody uses it.

  watch SOCKET COUNT  COUNT updates of the X.509 context, a line each
  bundles SOCKET      the bundles, a line for each trust domain
"""
import queue
import sys

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from spiffe import WorkloadApiClient


def public(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def watch(client, count):
    news = queue.Queue()
    stream = client.stream_x509_contexts(news.put, news.put, retry_connect=False)
    for _ in range(count):
        context = news.get(timeout=60)
        if isinstance(context, Exception):
            raise context
        svid = context.default_svid
        assert public(svid.private_key.public_key()) == public(svid.leaf.public_key())
        bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        # The chain as it came, up to a root of the bundle that came with it.
        chain = list(svid.cert_chain)
        for child, issuer in zip(chain, chain[1:]):
            child.verify_directly_issued_by(issuer)
        assert any(chain[-1].issuer == root.subject for root in bundle.x509_authorities)
        print("svid", svid.spiffe_id, f"{svid.leaf.serial_number:x}", flush=True)
    stream.cancel()


def bundles(client):
    for bundle in client.fetch_x509_bundles(timeout=30).bundles:
        print("bundle", bundle.trust_domain, len(bundle.x509_authorities), flush=True)


_, what, socket, *rest = sys.argv
with WorkloadApiClient(socket) as client:
    bundles(client) if what == "bundles" else watch(client, int(rest[0]))
