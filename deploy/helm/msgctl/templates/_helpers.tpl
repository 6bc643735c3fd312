{{- define "msgctl.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "msgctl.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "msgctl.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "msgctl.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "msgctl.selector" -}}
app.kubernetes.io/name: {{ include "msgctl.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "msgctl.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | quote }}
{{ include "msgctl.selector" . }}
{{- end }}

{{- define "msgctl.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "msgctl.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "msgctl.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "msgctl.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "msgctl.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A duration such as 1m30s in whole seconds, for what is compared below. */}}
{{- define "msgctl.seconds" -}}
{{- $total := 0.0 }}
{{- range regexFindAll "[0-9.]+(h|ms|m|s)" . -1 }}
{{- $n := regexFind "[0-9.]+" . | float64 }}
{{- $unit := regexFind "[a-z]+" . }}
{{- $total = addf $total (mulf $n (get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) $unit)) }}
{{- end }}
{{- ceil $total }}
{{- end }}

{{/* What cannot work together is refused here, because a schema cannot compare. */}}
{{- define "msgctl.check" -}}
{{- $drain := include "msgctl.seconds" (default "30s" .Values.config.drain_timeout) | int }}
{{- if le (int .Values.terminationGracePeriodSeconds) (add $drain (int .Values.preStopSeconds) | int) }}
{{- fail (printf "terminationGracePeriodSeconds %d must be more than drain_timeout and preStopSeconds together (%d s): a pod that is killed in its drain leaves attempts without an answer" (int .Values.terminationGracePeriodSeconds) (add $drain (int .Values.preStopSeconds) | int)) }}
{{- end }}
{{- range list "store" "broker" "limits" "node" }}
{{- if hasKey $.Values.config . }}
{{- fail (printf "config.%s: the chart sets it itself, from secrets.%s: leave it out here" . .) }}
{{- end }}
{{- end }}
{{- if eq .Values.mode "embedded" }}
{{- if ne (int .Values.replicaCount) 1 }}
{{- fail "mode embedded has its store on one volume: set replicaCount to 1, or mode to cluster" }}
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- fail "mode embedded cannot be scaled: set autoscaling.enabled to false, or mode to cluster" }}
{{- end }}
{{- end }}
{{- end }}
