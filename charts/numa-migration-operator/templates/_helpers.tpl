{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Labels of every object; a dict with "root" and "component". */}}
{{- define "numamigration.labels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels by which pods are selected, the same in every release: a DaemonSet's selector cannot be changed. */}}
{{- define "numamigration.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of pods: nothing that changes with the chart alone, which would restart every agent. */}}
{{- define "numamigration.podLabels" -}}
{{ include "numamigration.selector" . }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{/* Image reference; a dict with "root" and "image". */}}
{{- define "numamigration.image" -}}
{{- .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Settings of a process as its environment; a dict with "prefix" and "settings". */}}
{{- define "numamigration.settings" -}}
{{- range $name, $value := .settings }}
- name: {{ $.prefix }}{{ $name | snakecase | upper }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* The node selector of the DaemonSet in the words of the operator's setting: key=value,key=value. */}}
{{- define "numamigration.agentNodeSelector" -}}
{{- $terms := list -}}
{{- range $key, $value := .Values.agent.nodeSelector }}{{ $terms = append $terms (printf "%s=%s" $key $value) }}{{ end -}}
{{- join "," $terms }}
{{- end }}

{{/* What operator and jobs have in common: no root, no capability, nothing to write. */}}
{{- define "numamigration.operatorPodSecurity" -}}
runAsNonRoot: true
{{- with .Values.operator.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "numamigration.noPrivileges" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Annotations of a hook; a dict with "on", "weight" and "delete". */}}
{{- define "numamigration.hook" -}}
helm.sh/hook: {{ .on }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: {{ .delete }}
{{- end }}

{{/*
A Job or Pod that runs one command of the operator's image: its pod spec; a dict with "root", "account" and "arguments".
*/}}
{{- define "numamigration.commandPod" -}}
serviceAccountName: {{ .account }}
restartPolicy: Never
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.operator.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.operator.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "numamigration.operatorPodSecurity" .root | nindent 2 }}
containers:
  - name: {{ first .arguments }}
    image: {{ include "numamigration.image" (dict "root" .root "image" .root.Values.operator.image) }}
    imagePullPolicy: {{ .root.Values.operator.image.pullPolicy }}
    args: {{ toJson .arguments }}
    securityContext:
      {{- include "numamigration.noPrivileges" . | nindent 6 }}
    {{- with .root.Values.jobs.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}

{{/* A ServiceAccount of a command with its ClusterRole and binding; a dict with "root", "name", "on" and "rules". */}}
{{- define "numamigration.commandRights" -}}
{{- $metadata := dict "root" .root "component" "command" -}}
{{- $hook := dict "on" .on "weight" "-10" "delete" "before-hook-creation,hook-succeeded" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "numamigration.labels" $metadata | nindent 4 }}
  annotations:
    {{- include "numamigration.hook" $hook | nindent 4 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .name }}
  labels:
    {{- include "numamigration.labels" $metadata | nindent 4 }}
  annotations:
    {{- include "numamigration.hook" $hook | nindent 4 }}
rules:
{{ .rules | trimPrefix "\n" | trimSuffix "\n" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "numamigration.labels" $metadata | nindent 4 }}
  annotations:
    {{- include "numamigration.hook" $hook | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .name }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
