# SPDX-License-Identifier: Apache-2.0
"""`make demo`: one policy from ``kubectl apply`` to restored values, on a real control plane and three fake kernels."""
