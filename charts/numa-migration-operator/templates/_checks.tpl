{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
What cannot work is refused before anything is written. lookup returns nothing in `helm template` and in a cluster where
the object is not there yet, so a check only speaks of what it has seen.
*/}}

{{- define "numamigration.level" -}}
{{- $labels := (lookup "v1" "Namespace" "" .Release.Namespace | default dict).metadata | default dict -}}
{{- get ($labels.labels | default dict) "pod-security.kubernetes.io/enforce" -}}
{{- end }}

{{- define "numamigration.labelCommand" -}}
kubectl label namespace {{ .Release.Namespace }} --overwrite pod-security.kubernetes.io/enforce=privileged
{{- end }}

{{- define "numamigration.checkPodSecurity" -}}
{{- if and (ne .Values.namespace.podSecurityCheck "Ignore") (not .Values.namespace.create) }}
{{- $seen := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- $level := include "numamigration.level" . }}
{{- if has $level (list "baseline" "restricted") }}
{{- fail (printf "\n\nThe namespace %s has the pod security level %q, which forbids the host folders of the node agents: none of them would start. Run\n\n    %s\n\nor set namespace.podSecurityCheck=Ignore.\n" .Release.Namespace $level (include "numamigration.labelCommand" .)) }}
{{- end }}
{{- if and $seen (eq .Values.namespace.podSecurityCheck "Require") (ne $level "privileged") }}
{{- fail (printf "\n\nThe namespace %s has no pod security label, and namespace.podSecurityCheck=Require asks for one. Run\n\n    %s\n" .Release.Namespace (include "numamigration.labelCommand" .)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Fails when the object has the mark of another release; a dict with "root", "object" and "advice". */}}
{{- define "numamigration.checkOwner" -}}
{{- if .object }}
{{- $marks := .object.metadata.annotations | default dict }}
{{- $release := get $marks "meta.helm.sh/release-name" }}
{{- $namespace := get $marks "meta.helm.sh/release-namespace" }}
{{- if and $release (or (ne $release .root.Release.Name) (ne $namespace .root.Release.Namespace)) }}
{{- fail (printf "\n\nThe %s %s belongs to the release %s in the namespace %s. %s\n" .object.kind .object.metadata.name $release $namespace .advice) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "numamigration.checkOtherReleases" -}}
{{- if eq .Values.otherReleaseCheck "Refuse" }}
{{- range list "numamigration-operator" "numamigration-agent" }}
{{- include "numamigration.checkOwner" (dict "root" $ "object" (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" .) "advice" (printf "One cluster takes one install, since policies are cluster-wide: upgrade or uninstall that one. Look at it with: helm list --all-namespaces --filter %q" $.Chart.Name)) }}
{{- end }}
{{- if .Values.crds.install }}
{{- range list "migrationpolicies.numamigration.dev" "nodemigrationstates.numamigration.dev" "migrationprofiles.numamigration.dev" }}
{{- include "numamigration.checkOwner" (dict "root" $ "object" (lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" .) "advice" "Two owners would undo each other's changes: set crds.install=false and let that release keep the CRDs, or take them out of it first.") }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
