# SPDX-License-Identifier: Apache-2.0
"""The test bed: a real etcd and a real kube-apiserver on loopback, and everything that starts and stops them.

Map:

* ``binaries``: finds or builds the servers (``gomods/`` pins what is built).
* ``cache``: what is made once is whole, and named by what it was made from.
* ``processes``: one started server, its log, and its certain end.
* ``pki``: certificates and keys, made at every start.
* ``controlplane``: the servers together, their kubeconfigs and tokens.
* ``faultproxy``: what goes wrong between a process under test and the API server.
* ``api``: a small client for tests; not the operator's.
* ``fixtures``: the same for pytest.

``python -m tests.testbed --help`` starts it by hand.
"""
