# SPDX-License-Identifier: Apache-2.0
"""The contract between people, operator, agents and plugin: models, vocabulary, generated CRDs."""
