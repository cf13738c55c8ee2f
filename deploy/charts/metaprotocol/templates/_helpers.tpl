{{- define "metaprotocol.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 39 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* Of what belongs to no namespace: releases of the same name in two namespaces do not share it. */}}
{{- define "metaprotocol.clusterName" -}}
{{- printf "%s-%s" (include "metaprotocol.name" .) .Release.Namespace -}}
{{- end -}}

{{- define "metaprotocol.installation" -}}
{{- default (include "metaprotocol.name" .) .Values.installation -}}
{{- end -}}

{{/* What selects the pods: never changes. */}}
{{- define "metaprotocol.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "metaprotocol.labels" -}}
{{ include "metaprotocol.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "metaprotocol.metadata" -}}
name: {{ include "metaprotocol.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "metaprotocol.labels" . | nindent 2 }}
{{- end -}}

{{- define "metaprotocol.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* What is read and written in a namespace. */}}
{{- define "metaprotocol.rules" -}}
- apiGroups: [""]
  resources: [services, pods]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [metaprotocol.aeraki.io]
  resources: [metarouters]
  verbs: [list, watch]
- apiGroups: [metaprotocol.aeraki.io]
  resources: [metarouters/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [networking.istio.io]
  resources: [serviceentries, workloadentries, destinationrules, virtualservices, gateways]
  verbs: [list, watch]
- apiGroups: [networking.istio.io]
  resources:
  - virtualservices/status
  - destinationrules/status
  - serviceentries/status
  - gateways/status
  verbs: [patch]
- apiGroups: [security.istio.io]
  resources: [authorizationpolicies, requestauthentications]
  verbs: [list, watch]
- apiGroups: [telemetry.istio.io]
  resources: [telemetries]
  verbs: [list, watch]
- apiGroups: [redis.aeraki.io]
  resources: [redisservices, redisdestinations]
  verbs: [list, watch]
- apiGroups: [redis.aeraki.io]
  resources: [redisservices/status, redisdestinations/status]
  verbs: [patch]
- apiGroups: [dubbo.aeraki.io]
  resources: [dubboauthorizationpolicies]
  verbs: [list, watch]
{{- if .Values.istio.enabled }}
- apiGroups: [networking.istio.io]
  resources: [envoyfilters]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [networking.istio.io]
  resources: [virtualservices]
  verbs: [create, patch, delete]
- apiGroups: [networking.istio.io]
  resources: [serviceentries]
  verbs: [patch]
{{- end }}
{{- end -}}

{{/* Whether the control plane makes the webhook's certificate by itself. */}}
{{- define "metaprotocol.ownCertificate" -}}
{{- if and .Values.webhook.enabled (not .Values.webhook.certManager.issuerRef) -}}true{{- end -}}
{{- end -}}

{{- define "metaprotocol.webhookSecret" -}}
{{- printf "%s-webhook" (include "metaprotocol.name" .) -}}
{{- end -}}
