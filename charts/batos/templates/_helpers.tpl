{{- define "batos.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "batos.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "batos.selector" . }}
{{- end }}

{{- define "batos.selector" -}}
app.kubernetes.io/name: batos
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "batos.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (printf "%s-operator" (include "batos.name" .)) }}
{{- end }}

{{/* The policy for decisions, its binding, and the Secret with the key that they are signed with. */}}
{{- define "batos.decisions" -}}
{{ include "batos.name" . }}-decisions
{{- end }}

{{- define "batos.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
