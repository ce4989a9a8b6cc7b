# SPDX-License-Identifier: Apache-2.0
"""A workload in Python, with PyPI's `spiffe` as everybody uses it.

  watch SOCKET COUNT  COUNT updates of the X.509 context, a line each
  bundles SOCKET      the bundles, a line for each trust domain
  sds SOCKET NAME...  secrets on one stream, as a proxy asks for them: a line for each answer, for
                      ever; each name with the SHA-256 of its first certificate
"""
import queue
import sys

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
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


def field(number, value):
    """A field of bytes, as protobuf writes it; all of ours are below 128 bytes."""
    value = value.encode()
    return bytes([number << 3 | 2, len(value)]) + value


def fields(data):
    """The fields of a message that are bytes; secret discovery has no others that matter."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        value = varint()
        if key & 7 == 2:
            at += value
            yield key >> 3, data[at - value : at]


def first(data, number):
    return next(value for found, value in fields(data) if found == number)


def sds(socket, names):
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    asked = b"".join(field(3, name) for name in names) + field(4, kind)
    requests = queue.Queue()
    requests.put(asked)
    method = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
    with grpc.insecure_channel(socket) as channel:
        for answer in channel.stream_stream(method)(iter(requests.get, None)):
            line = []
            for secret in (first(any_, 2) for number, any_ in fields(answer) if number == 2):
                # The chain of a certificate (2), the roots of a context (4), each a data source.
                held = next(value for number, value in fields(secret) if number in (2, 4))
                chain = x509.load_pem_x509_certificates(first(first(held, 1), 2))
                line += [first(secret, 1).decode(), chain[0].fingerprint(SHA256()).hex()]
            print("answer", *line, flush=True)
            version, nonce = first(answer, 1).decode(), first(answer, 5).decode()
            requests.put(field(1, version) + asked + field(5, nonce))


_, what, socket, *rest = sys.argv
if what == "sds":
    sds(socket, rest)
    sys.exit()
with WorkloadApiClient(socket) as client:
    bundles(client) if what == "bundles" else watch(client, int(rest[0]))
