{{/* What the templates have in common. Those that take a list take (root, part) or what is said there. */}}

{{- define "hearth.labels" -}}
{{- $root := index . 0 -}}
{{ include "hearth.selector" (index . 1) }}
app.kubernetes.io/part-of: hearth
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Takes the part; empty for what belongs to all of them. */}}
{{- define "hearth.selector" -}}
app.kubernetes.io/name: hearth
{{- with . }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Takes (root, the values of an image, what they are called). */}}
{{- define "hearth.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := default $root.Chart.AppVersion $image.tag -}}
{{- required (printf "%s.repository says where the image is, as registry.example/hearth does" (index . 2)) $image.repository -}}
{{- hasPrefix "sha256:" $tag | ternary "@" ":" }}{{ $tag }}
{{- end }}

{{/* What the pods of a part are called by, and what they are started anew for. */}}
{{- define "hearth.pod" -}}
{{- $root := index . 0 -}}
metadata:
  labels:
    {{- include "hearth.selector" (index . 1) | nindent 4 }}
    app.kubernetes.io/part-of: hearth
  {{- with include "hearth.annotations" . | fromYaml }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Pods are started anew when what they read once, at their start, has changed. */}}
{{- define "hearth.annotations" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- if ne $part "migrate" }}
checksum/settings: {{ toJson $root.Values.settings | sha256sum }}
{{- end }}
{{- if has $part (list "api" "worker") }}
checksum/node-pools: {{ include "hearth.nodePools" $root | sha256sum }}
{{- end }}
{{- with $root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hearth.podSpec" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Takes the part. */}}
{{- define "hearth.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "hearth.selector" . | nindent 8 }}
{{- end }}

{{/* Ends when the Job of this version has brought the schema to where this version needs it. */}}
{{- define "hearth.schema" -}}
initContainers:
  - name: schema
    {{- include "hearth.container" (list . .Values.image "image") | nindent 4 }}
    command: [hearth, migrate, --wait]
    {{- include "hearth.envFrom" . | nindent 4 }}
    env:
      - {name: HOME, value: /tmp}
      {{- include "hearth.secretSettings" (list . true) | indent 6 }}
    resources:
      requests: {cpu: 50m, memory: 128Mi}
      limits: {memory: 512Mi}
    terminationMessagePolicy: FallbackToLogsOnError
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Takes what `hearth.image` takes. */}}
{{- define "hearth.container" -}}
image: {{ include "hearth.image" . }}
{{- with (index . 0).Values.imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "hearth.envFrom" -}}
envFrom:
  - configMapRef: {name: hearth-settings}
  {{- include "hearth.secrets" . | indent 2 }}
{{- end }}

{{- define "hearth.secrets" -}}
{{- range .Values.secrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Takes (root, whether the part may decrypt what users stored). */}}
{{- define "hearth.secretSettings" -}}
{{- $decrypts := index . 1 -}}
{{- range $name, $from := (index . 0).Values.secretSettings }}
{{- if or $decrypts (ne $name "HEARTH_SECRET_KEYS") }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $from.name }}, key: {{ $from.key }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "hearth.nodePools" -}}
{{- $image := include "hearth.image" (list . .Values.engineImage "engineImage") -}}
{{- $here := dict "image" $image "platformNamespace" .Release.Namespace -}}
{{- toYaml (mergeOverwrite $here .Values.nodePools) -}}
{{- end }}

{{/* What has no namespace is called after the one that it is for. */}}
{{- define "hearth.clusterWide" -}}
{{- eq .Release.Namespace "hearth" | ternary "hearth-worker" (printf "hearth-worker-%s" .Release.Namespace) }}
{{- end }}
