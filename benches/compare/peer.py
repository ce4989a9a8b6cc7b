"""Myelin as a peer of a measuring stick that starts pairs of sidecars in two network namespaces.

A real CA in the server's namespace, real SVIDs by join token, the default configuration: transparent, X25519MLKEM768, policy,
metrics and rotation on. The stick redirects by the proxies' user alone, so no mark is set and the rules are not verified.
Binaries: MYELIN_BIN (a directory), else target/release of this checkout.

Never: a setting that a user of the defaults would not have, except where the stick needs it (said above).
"""
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import time

import common as C
from peers import Peer

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get("MYELIN_BIN", os.path.join(HERE, "..", "..", "target", "release"))
DOMAIN = "compare.test"
CA_PORT = 15010
POLICY = """
[[inbound.allow]]
name = "client"
ports = [8080, 8081, 9000]
ids = ["spiffe://%s/ns/default/sa/client"]
""" % DOMAIN


class Authority:
    """The CA, and the join tokens of both workloads."""

    def __init__(self, peer):
        self.peer, self.data = peer, os.path.join(peer.dir, "ca")
        self.proc = None

    def start(self):
        argv = [self.peer.ca, "serve", "--trust-domain", DOMAIN, "--data", self.data, "--listen", f"[::]:{CA_PORT}", "--ops-listen", "127.0.0.1:15011",
                "--ca-address", C.SERVER_IP, "--log-level", "warn"] + self.peer.ca_flags
        self.proc = C.Proc(argv, ns=C.SERVER_NS, log=os.path.join(self.peer.dir, "ca.log"))
        end = time.monotonic() + 10
        while not os.path.exists(os.path.join(self.data, "admin.sock")):
            if time.monotonic() > end or self.proc.p.poll() is not None:
                raise RuntimeError("the CA did not start: " + open(os.path.join(self.peer.dir, "ca.log")).read()[-1000:])
            time.sleep(0.01)
        for side, ip in (("client", C.CLIENT_IP), ("server", C.SERVER_IP)):
            out = subprocess.run([self.peer.ca, "token", "create", "--data", self.data, "--id", f"spiffe://{DOMAIN}/ns/default/sa/{side}",
                                  "--address", ip], capture_output=True, text=True, check=True).stdout
            token = next(word for word in out.split() if word.startswith("mjt1."))
            self.peer.own(f"{side}/token", token)

    def stop(self):
        self.proc.stop()


class Myelin(Peer):
    transparent, out_port, in_port = True, 15001, 15006

    def __init__(self, threads=1, name="myelin", config="", ca_flags=()):
        super().__init__(threads)
        self.name, self.more, self.ca_flags = name, config, list(ca_flags)
        self.note = "default configuration, real CA and SVIDs; redirected by UID, so no mark and no check of the rules"
        self.sidecar, self.ca = (os.path.abspath(os.path.join(BIN, x)) for x in ("myelin-sidecar", "myelin-ca"))

    def missing(self):
        return None if os.path.exists(self.sidecar) and os.path.exists(self.ca) else f"no binaries in {BIN}"

    def own(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o600)
        os.chown(path, C.PROXY_UID, C.PROXY_UID)

    def setup(self, d, pki):
        super().setup(d, pki)
        for side in ("client", "server"):
            for sub in (side, f"{side}/state", f"{side}/run"):
                os.makedirs(os.path.join(d, sub))
                os.chown(os.path.join(d, sub), C.PROXY_UID, C.PROXY_UID)
                os.chmod(os.path.join(d, sub), 0o700)
            here = os.path.join(d, side)
            self.own(f"{side}/sidecar.toml", f"""trust_domain = "{DOMAIN}"
mesh_cidrs = ["198.18.0.0/15"]
state_dir = "{here}/state"
[ca]
address = "{C.SERVER_IP}:{CA_PORT}"
join_token_file = "{here}/token"
{"allow_short_lifetimes = true" if self.ca_flags else ""}
[listen]
admin = "{here}/run/admin.sock"
workers = {self.threads}
[intercept]
mark = 0
verify = false
{POLICY if side == "server" else ""}
{self.more}
""")

    def helpers(self):
        return [Authority(self)]

    def procs(self):
        return [dict(side=side, uid=C.PROXY_UID, argv=[self.sidecar, "run", "--config", os.path.join(self.dir, side, "sidecar.toml")])
                for side in ("server", "client")]


def peers():
    return {"myelin": lambda threads: Myelin(threads)}
