# SPDX-License-Identifier: Apache-2.0
"""What the kernel offers and says. Nothing in here knows of Kubernetes; only ``sysfs`` opens kernel files."""
