{{/* The labels that Kubernetes recommends; call with (list $ "component"). */}}
{{- define "myelin.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: myelin
{{ include "myelin.selector" . }}
{{- end }}

{{/* What never changes of them. */}}
{{- define "myelin.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: myelin-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* An image; call with (list $ "myelin-ca"). */}}
{{- define "myelin.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ index . 1 }}:{{ $root.Values.images.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* Where replicas of one kind may stand; call with (list $ "component" .Values.<component>). */}}
{{- define "myelin.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if ne $values.antiAffinity "none" }}
affinity:
  podAntiAffinity:
    {{- if eq $values.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "myelin.selector" . | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "myelin.selector" . | nindent 14 }}
    {{- end }}
{{- end }}
{{- end }}

{{/* A container that may do nothing but run. */}}
{{- define "myelin.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The controller's file (docs/INJECTION.md). */}}
{{- define "myelin.controller-toml" -}}
trust_domain = {{ .Values.trustDomain | quote }}
mesh_cidrs = {{ .Values.meshCidrs | toJson }}
namespace = {{ .Release.Namespace | quote }}

[ca]
service = "myelin-ca"
bundle_file = "/etc/myelin-bundle/bundle.pem"
{{- if .Values.trustBundle.distribute }}
bundle_config_map = "myelin-trust-bundle"
{{- end }}

[sidecar]
image = {{ include "myelin.image" (list $ "myelin-sidecar") | quote }}
image_pull_policy = {{ .Values.images.pullPolicy | quote }}
revision = {{ .Values.controller.revision | quote }}
cni = {{ .Values.cni.enabled }}

[sidecar.resources]
{{- range $kind, $amounts := .Values.sidecar.resources }}
{{- range $what, $amount := $amounts }}
{{ $what }}_{{ $kind }} = {{ $amount | quote }}
{{- end }}
{{- end }}
{{- range .Values.sidecar.exceptions }}

[[sidecar.exception]]
name = {{ .name | quote }}
address = {{ .address | quote }}
{{- with .port }}
port = {{ . }}
{{- end }}
{{- end }}

[webhook]
listen = "[::]:15443"
privileges = {{ .Values.controller.privileges | quote }}
{{- if .Values.webhook.create }}
service = "myelin-controller"
configuration = "myelin-injector"
certificate_secret = {{ .Values.webhook.secret | quote }}
{{- else }}
certificate_file = "/etc/myelin-webhook/tls.crt"
key_file = "/etc/myelin-webhook/tls.key"
{{- end }}
{{- with .Values.controller.services.clusterIP }}

[services]
listen = "[::]:15014"
address = [{{ ternary (printf "[%s]:15014" .) (printf "%s:15014" .) (contains ":" .) | quote }}]
service_account = "myelin-controller"
token_file = "/etc/myelin-identity/token"
# What an emptyDir gives is anybody's to write in; what is made below it is the controller's.
state_dir = "/var/lib/myelin/state"
policies = {{ $.Values.controller.policies.enabled }}
{{- end }}

[ops]
listen = "[::]:15022"

[log]
level = {{ .Values.controller.logLevel | quote }}
format = {{ .Values.controller.logFormat | quote }}
{{- end }}
